"""Reads the markup of a PTT article: a strict scanner over what the server generates, and nothing looser.

An HTML5 parser repairs whatever it gets, and so hides that a page was cut or spliced. The server's own output is
balanced and made of about 40 tags, so anything else inside `#main-content` is evidence of damage.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field

from persona_dagster.sites.parser_results import MalformedError

MAX_DEPTH = 32  # the server nests 6 deep

TOKEN = re.compile(
    # The server's usual push in one match: three quarters of a page's tags.
    r'<div class="push"><span class="((?:f1 )?hl push-tag)">([^<]*)</span>'
    r'<span class="f3 hl push-userid">([^<]*)</span><span class="f3 push-content">([^<]*)</span>'
    r'<span class="push-ipdatetime">([^<]*)</span></div>'
    r"|([^<]+)"
    r"|<(/?)([a-zA-Z][a-zA-Z0-9]*)"
    r"((?:\s+[^\s\"'<>/=]+(?:\s*=\s*(?:\"[^\"]*\"|'[^']*'|[^\s\"'<>=`]+))?)*)\s*/?>"
    r"|(<!--(?:(?!-->).)*-->)",
    re.DOTALL,
)
ATTRIBUTE = re.compile(r"([^\s\"'<>/=]+)(?:\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'<>=`]+)))?")
MAIN = re.compile(r"<div\b[^<>]*\bid=[\"']?main-content[\"'\s>][^<>]*>?")
COLOURS = frozenset(["hl", "f0", "f1", "f2", "f3", "f4", "f5", "f6", "f7", *(f"b{n}" for n in range(8))])
VOID = frozenset(["img", "br", "source"])
# What the server puts in by itself for links to pictures and films; its text stands in the link before it.
EMBEDS = frozenset(["img", "iframe", "blockquote", "script", "video", "source"])
PUSH_PARTS = {"push-tag": 0, "push-userid": 1, "push-content": 2, "push-ipdatetime": 3}


@dataclass(slots=True)
class PushLine:
    tag: str
    user: str
    content: str
    when: str  # what stands after the content: an address on some boards, month/day, hour:minute


@dataclass(slots=True)
class TextRun:
    """A run of body text in one colour; `colour` is the server's class, '' for plain."""

    text: str
    colour: str = ""


@dataclass(slots=True)
class Cut:
    """檔案過大: the server left out the middle of the file."""


@dataclass(slots=True)
class Article:
    metas: list[tuple[str, str]] = field(default_factory=list)
    items: list[PushLine | TextRun | Cut] = field(default_factory=list)
    end: int = 0  # just after the closing tag of #main-content
    problems: list[str] = field(default_factory=list)


def attributes(text: str) -> dict[str, str]:
    return {name: html.unescape(a or b or c or "") for name, a, b, c in ATTRIBUTE.findall(text)}


def decode_cfemail(code: str) -> str:
    """Cloudflare's hiding of whatever holds an @: the first byte is the XOR key of the rest."""
    try:
        key, *rest = bytes.fromhex(code)
        return bytes(byte ^ key for byte in rest).decode("utf-8")
    except (ValueError, UnicodeDecodeError) as error:
        raise MalformedError(f"a hidden e-mail that does not decode: {code[:40]!r}") from error


@dataclass(slots=True)
class _Open:
    """An element not yet closed: its role decides what becomes of text inside it."""

    tag: str
    role: str  # main | meta | meta-tag | meta-value | push | part | colour | link | hidden | skip | warning
    colour: str = ""
    parts: list[str] | None = None  # of a push or metaline being read
    part: int = 0


def scan_article(source: str) -> Article:  # noqa: PLR0912 - one branch a token
    """The items of `#main-content` in order. Raises `MalformedError` when there is none or its markup is broken."""
    start = MAIN.search(source)
    if start is None:
        raise MalformedError("no #main-content")
    if MAIN.search(source, start.end()):
        raise MalformedError("two #main-content")
    article, stack, at = Article(), [_Open("div", "main")], start.end()
    while stack:
        token = TOKEN.match(source, at)
        if token is None:
            what = "the page ends inside #main-content" if at >= len(source) else f"broken markup at character {at}"
            raise MalformedError(what)
        at = token.end()
        colour, tag, user, content, when, text, closing, name, attrs, _comment = token.groups()
        if when is not None:
            if stack[-1].role != "main":
                raise MalformedError(f"a push inside another element at character {token.start()}")
            _add_push(
                article, colour, [html.unescape(part) if "&" in part else part for part in (tag, user, content, when)]
            )
        elif text is not None:
            _add_text(article, stack, text)
        elif name is None:
            continue  # a comment
        elif closing:
            _close(article, stack, name.lower(), token.start())
        elif name.lower() == "script":
            end = source.find("</script>", at)
            if end < 0:
                raise MalformedError("the page ends inside a script")
            at = end + len("</script>")
        elif name.lower() not in VOID:
            _open(article, stack, name.lower(), attributes(attrs), token.start())
            if len(stack) > MAX_DEPTH:
                raise MalformedError(f"nested deeper than {MAX_DEPTH}")
    article.end = at
    return article


def _add_push(article: Article, colour: str, parts: list[str]) -> None:
    tag, user, content, when = parts
    # 推 is white, the others red: a mismatch means that two pushes were spliced into one.
    if tag.strip() and ("f1" in colour.split()) == (tag.strip() == "推"):
        article.problems.append(f"a push whose tag {tag.strip()!r} has another's colour")
    article.items.append(PushLine(tag.strip(), user.strip(), content, when))


def _add_text(article: Article, stack: list[_Open], text: str) -> None:
    top = stack[-1]
    holder = next(opened for opened in reversed(stack) if opened.role != "link")
    if top.role in ("skip", "hidden", "warning") or holder.role in ("skip", "warning"):
        return
    text = html.unescape(text) if "&" in text else text
    if holder.role in ("main", "colour"):
        article.items.append(TextRun(text, holder.colour))
    elif holder.parts is not None and holder.role == "part":
        holder.parts[holder.part] += text
    elif text.strip():
        article.problems.append(f"text where none belongs, in a {holder.role}: {text.strip()[:20]!r}")


def _open(  # noqa: PLR0912 - one branch an element
    article: Article, stack: list[_Open], name: str, attrs: dict[str, str], at: int
) -> None:
    parent, classes = stack[-1], attrs.get("class", "").split()
    if parent.role in ("skip", "warning") or name in EMBEDS or "richcontent" in classes:
        stack.append(_Open(name, "warning" if parent.role == "warning" else "skip"))
    elif "data-cfemail" in attrs:
        _add_text(article, stack, html.escape(decode_cfemail(attrs["data-cfemail"])))
        stack.append(_Open(name, "hidden"))
    elif name == "a" and parent.role != "push":
        stack.append(_Open(name, "link"))
    elif parent.role == "push" and name == "span" and (kind := PUSH_PARTS.keys() & set(classes)):
        part = PUSH_PARTS[kind.pop()]
        if parent.parts and parent.parts[part]:
            article.problems.append(f"a push with two {name} of one kind at character {at}")
        opened = _Open(name, "part", parts=parent.parts, part=part)
        if part == 0:
            parent.colour = " ".join(classes)
        stack.append(opened)
    elif parent.role == "meta" and name == "span" and classes[:1] == ["article-meta-tag"]:
        stack.append(_Open(name, "part", parts=parent.parts, part=0))
    elif parent.role == "meta" and name == "span" and classes[:1] == ["article-meta-value"]:
        stack.append(_Open(name, "part", parts=parent.parts, part=1))
    elif parent.role in ("main", "colour", "link") and name == "span" and classes and COLOURS.issuperset(classes):
        stack.append(_Open(name, "colour", colour=" ".join(classes)))
    elif parent.role == "main" and name == "div" and "warning-box" in classes:
        article.items.append(Cut())
        stack.append(_Open(name, "warning"))
    elif parent.role == "main" and name == "div" and classes == ["push"]:
        stack.append(_Open(name, "push", parts=["", "", "", ""]))
    elif parent.role == "main" and name == "div" and classes and classes[0].startswith("article-metaline"):
        stack.append(_Open(name, "meta", parts=["", ""]))
    else:
        raise MalformedError(f"<{name} class={' '.join(classes)!r}> in a {parent.role} at character {at}")


def _close(article: Article, stack: list[_Open], name: str, at: int) -> None:
    opened = stack.pop()
    if opened.tag != name:
        raise MalformedError(f"</{name}> closes <{opened.tag}> at character {at}")
    if opened.role == "push" and opened.parts is not None:
        if not opened.parts[3].strip() and not opened.parts[1].strip():
            article.problems.append(f"an empty push before character {at}")
        _add_push(article, opened.colour, opened.parts)
    elif opened.role == "meta" and opened.parts is not None:
        if any(
            isinstance(item, PushLine) or (isinstance(item, TextRun) and item.text.strip()) for item in article.items
        ):
            article.problems.append("a metaline after the body began")
        article.metas.append((opened.parts[0].strip(), opened.parts[1].strip()))
