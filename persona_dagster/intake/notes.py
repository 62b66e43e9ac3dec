"""NLP notes: Markdown, Obsidian, Jupyter, HTML, text, PDF, DOCX and question/answer JSONL → a post a section, whose
title asks and whose text answers.

A capture holds a whole file; whatever it is, it is read as Markdown. Headings count only outside code fences; what a
reader never sees (front matter, components, comments, anchors, citation marks) is left out.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path, PurePosixPath

import orjson
import yaml

from persona_dagster.digest import sha256, text_digest
from persona_dagster.intake.open_and_decode import SAMPLE, encoding_of, walk
from persona_dagster.records import HEADING_PATH, Capture, Outcome, Post
from persona_dagster.sites.parser_results import AuthorKey, MalformedError, Parsed, decode, incomplete

SUFFIXES = (".md", ".mdx", ".markdown", ".jsonl", ".ipynb", ".txt", ".html", ".htm", ".pdf", ".docx")
MIN_TEXT = 20  # characters of prose below which a section only holds a link or a picture

FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)$")
# `##標題` is no heading to CommonMark; to whoever wrote it, it is one. `#tag` of Obsidian has one sign.
HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+|(?<=##)(?=[\u3400-\u9fff0-9A-Z]))(.*?)(?:[ \t]+#+)?[ \t]*$")
# `**Q:** …` asks and `**A:** …` answers; a question that nobody answers is no section.
ASKED = re.compile(r"[ ]{0,3}(?:\*\*)?(?:Q|問)\d*\s?[:：](?:\*\*)?\s*(.*)$")
ANSWERED = re.compile(r"[ ]{0,3}(?:\*\*)?(?:A|答)\d*\s?[:：](?:\*\*)?\s*(.*)$")
UNDERLINE = re.compile(r" {0,3}=+[ \t]*$")
ANCHOR = re.compile(r"\s*(?:\[\[[^\]]*\]\]|\{#[^}]*\})\s*$")
LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
WIKI_LINK = re.compile(r"!?\[\[(?:[^\]\n|#]*#)?([^\]\n|]*)(?:\|([^\]\n]*))?\]\]")
CALLOUT = re.compile(r"^> ?\[!\w+\][+-]? ?", re.MULTILINE)
OBSIDIAN_TAGS = re.compile(r"^[ \t]*(?:#[\w/-]+[ \t]*)+$", re.MULTILINE)
# `[16, 18]`, `[3-5]`, `[^note]`, `【12†source】`: they point to a list that is not there. `x[1, 2]` is code and stays.
CITATION = re.compile(
    r"(?<=[^\sA-Za-z0-9_\])`])[ ]?\[\d{1,3}(?:[ ]?[,，、–-][ ]?\d{1,3})*\](?![(:\[])"
    r"|\[\^[^\]\s]{1,40}\](?!:)|【\d+†[^】]{0,40}】"
)
FOOTNOTE = re.compile(r"^\[\^[^\]\s]{1,40}\]:.*(?:\n[ \t]+\S.*)*$", re.MULTILINE)
# What ends a section though it belongs to none: rules, and headings of a template that hold nothing.
TRAILING = re.compile(r"(?:\n+[ \t]*(?:-[ \t]*){3,}|\n+[ \t]*(?:\*[ \t]*){3,}|\n+[ \t]*(?:_[ \t]*){3,})+\s*\Z")
COMMENT = re.compile(r"<!--.*?-->|\{/\*.*?\*/\}", re.DOTALL)
COMPONENT = re.compile(r"<[A-Z][A-Za-z.]*\b(?:[^<>]|=>|<[^<>]*>)*?/>", re.DOTALL)
TAGS_ONLY = re.compile(r"^[ \t]*(?:</?[A-Za-z][^>]*>[ \t]*)+$", re.MULTILINE)
# Elements by name: `<cls>` and `<hashtag>` are words of the field, and what stands in backticks is code.
INLINE = re.compile(
    r"(?P<code>`[^`\n]+`)|(?P<br><br\s*/?>)|</?(?:a|audio|b|big|blockquote|center|code|details|div|em|figure|font|h[1-6]"
    r"|i|iframe|img|kbd|li|mark|ol|p|small|source|span|strong|sub|summary|sup|table|tbody|td|th|thead|tr|u|ul|video)"
    r"(?:\s[^<>]*)?/?>",
    re.IGNORECASE,
)
IMPORT = re.compile(r"^(?:import .+ from .+|export (?:const|default) .+)$", re.MULTILINE)
EMPHASIS = re.compile(r"(\*\*|__|\*|`)(.+?)\1")
PROSE = re.compile(r"<[^>]+>|https?://\S+|\W+")


@dataclass(slots=True)
class Section:
    title: str | None
    blocks: list[tuple[bool, str]] = field(default_factory=list)  # (is code, line)
    unanswered: bool = False  # a question whose answer has not come yet
    above: tuple[str, ...] = ()  # the headings that it stands under, from the top

    def answer(self, first: str) -> None:
        """What came until here belongs to the question."""
        self.title = " ".join(filter(None, (self.title, *(line.strip() for _, line in self.blocks))))
        self.blocks, self.unanswered = [(False, first)], False

    def text(self) -> str:
        """The section's Markdown as a reader's eye has it; code stays as it is."""
        runs = ((code, "\n".join(line for _, line in run)) for code, run in groupby(self.blocks, key=itemgetter(0)))
        text = "\n".join(text if code else visible(text) for code, text in runs).strip()
        return TRAILING.sub("", f"\n{text}").strip()


def read_notes(folder: Path) -> Iterator[Capture]:
    """A capture a file below `folder`, in the order of their paths; the board is the file's name without suffix.

    A name that several folders use (`chapter1/5.mdx`) is joined with its folders'.
    """
    found = sorted(walk(folder, [])) if folder.is_dir() else []
    paths = [path for path in found if path.suffix.lower() in SUFFIXES]
    stems = [path.stem for path in paths]
    for path in paths:
        name = path.relative_to(folder)
        board = path.stem if stems.count(path.stem) == 1 else "-".join(name.with_suffix("").parts)
        body = path.read_bytes()
        yield Capture(
            source="notes",
            board=re.sub(r"[^\w.-]+", "_", board),
            kind="note",
            key=name.as_posix(),
            url="",
            fetched_at=datetime.fromtimestamp(path.stat().st_mtime, UTC),
            status=200,
            outcome=Outcome.OK,
            headers={},
            body=body,
            sha256=sha256(body),
        )


def parse_note(capture: Capture, author_key: AuthorKey) -> Parsed:
    """The sections of one file; `author_key` has no use here, notes name no people."""
    suffix = PurePosixPath(capture.key).suffix.lower()
    try:
        if suffix == ".jsonl":
            return Parsed(Outcome.OK, _unique(capture, "", [(*pair, ()) for pair in _questions(decode(capture.body))]))
        url, sections = split_sections(as_markdown(capture.body, suffix).replace("\r\n", "\n"))
    except MalformedError as error:
        return incomplete(f"{capture.key}: {error}")
    if not any(section.title for section in sections):
        sections[0].title = PurePosixPath(capture.key).stem  # a note without headings is asked for by its name
    answered = [section for section in sections if section.title and not section.unanswered]
    found = [(section, body) for section in answered if is_prose(body := section.text())]
    return Parsed(Outcome.OK, _unique(capture, url, [(one.title or "", body, one.above) for one, body in found]))


def as_markdown(body: bytes, suffix: str) -> str:
    """A note of any kind as Markdown. Raises `MalformedError` for what is not of that kind."""
    if suffix in (".pdf", ".docx"):
        return _office(body, suffix)
    codec = encoding_of(body[:SAMPLE])
    try:
        text = body.decode("utf-8-sig" if codec == "utf-8" else codec)
    except UnicodeDecodeError as error:
        raise MalformedError(f"no {codec} at byte {error.start}; save it as UTF-8") from error
    if "\x00" in text:
        raise MalformedError(f"a NUL character at {text.index(chr(0))}")
    match suffix:
        case ".ipynb":
            return _notebook(text)
        case ".html" | ".htm":
            return _html(text)
    return text


def _notebook(text: str) -> str:
    """The Markdown cells of a Jupyter notebook, and the code between them; no outputs."""
    import nbformat

    try:
        book = nbformat.reads(text, as_version=4)
    except Exception as error:  # nbformat's readers raise whatever the JSON makes them
        raise MalformedError(f"no Jupyter notebook: {str(error)[:120]}") from error
    cells = []
    for cell in book.cells:
        if cell.cell_type == "markdown":
            cells.append(cell.source)
        elif cell.cell_type == "code" and cell.source.strip():
            cells.append(f"```python\n{cell.source}\n```")
    return "\n\n".join(cells)


def _html(text: str) -> str:
    """The main part of a page, without what surrounds it on every page of its site."""
    from markdownify import markdownify
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(text)
    for node in tree.css("script, style, nav, header, footer, aside, form, noscript, svg"):
        node.decompose()
    main = tree.css_first("article") or tree.css_first("main") or tree.body
    return markdownify(main.html or "", heading_style="ATX", strip=["img"]) if main else ""


def _office(body: bytes, suffix: str) -> str:
    try:
        from markitdown import MarkItDown, MarkItDownException, StreamInfo
    except ImportError as error:
        raise MalformedError(f"{suffix} is read with an extra: pip install 'persona-dagster[docs]'") from error
    try:
        return (
            MarkItDown(enable_plugins=False)
            .convert_stream(io.BytesIO(body), stream_info=StreamInfo(extension=suffix))
            .markdown
        )
    except MarkItDownException as error:
        why = str(error).strip().split("\n")[-1][:160]
        raise MalformedError(f"no {suffix} that can be read ({why}); a password has to be taken off first") from error


def _unique(capture: Capture, url: str, found: list[tuple[str, str, tuple[str, ...]]]) -> list[Post]:
    """Posts of (heading, body, headings above), titled by the path. They are named by file and heading: an edited
    section keeps its name, a second one of that heading gets its own."""
    seen: dict[str, int] = {}
    posts = []
    for title, body, above in found:
        seen[title] = seen.get(title, 0) + 1
        post_id = text_digest(capture.key, title, str(seen[title]))[:16]
        posts.append(
            Post(
                source="notes",
                board=capture.board,
                kind="post",
                post_id=post_id,
                url=url,
                text_raw=body,
                thread_id=post_id,
                title=HEADING_PATH.join((*above, title)),
            )
        )
    return posts


def _questions(text: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
            question, answer = row["question"], row["answer"]
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise MalformedError(f"line {number} is no {{question, answer}}: {error}") from error
        if not (isinstance(question, str) and isinstance(answer, str)):
            raise MalformedError(f"line {number}: question and answer must be text")
        if question.strip() and answer.strip():
            yield question.strip(), answer.strip()


def split_sections(text: str) -> tuple[str, list[Section]]:
    """(source URL of the front matter or nothing, sections in order). Each heading opens a section of its own."""
    title, url = None, ""
    if matter := FRONT_MATTER.match(text):
        title, url = _front_matter(matter[1])
        text = text[matter.end() :]
    text = _without_comments(text)
    sections = [Section(title)]
    open_headings = {0: title} if title else {}  # by level
    fence = ""

    def opened(level: int, heading: str) -> None:
        for deeper in [one for one in open_headings if one >= level]:
            del open_headings[deeper]
        above = tuple(dict.fromkeys(one for one in open_headings.values() if one != heading))
        sections.append(Section(heading or None, above=above))
        open_headings[level] = heading

    lines = text.split("\n")
    for index, line in enumerate(lines):
        following = lines[index + 1] if index + 1 < len(lines) else ""
        mark = FENCE.match(line)
        if fence:
            sections[-1].blocks.append((True, line))
            if mark and mark[1].startswith(fence) and not mark[2].strip():
                fence = ""
        elif mark and not (mark[1][0] == "`" and "`" in mark[2]):
            fence = mark[1]
            sections[-1].blocks.append((True, line))
        elif heading := HEADING.match(line):
            opened(len(heading[1]), plain_heading(heading[2]))
        elif asked := ASKED.match(line):
            above = tuple(dict.fromkeys(filter(None, open_headings.values())))
            sections.append(Section(plain_heading(asked[1]), unanswered=True, above=above))
        elif sections[-1].unanswered and (answer := ANSWERED.match(line)):
            sections[-1].answer(answer[1])
        elif UNDERLINE.match(following) and line.strip() and "=" not in line:
            opened(1, plain_heading(line))
        elif not UNDERLINE.match(line):
            sections[-1].blocks.append((False, line))
    return url, sections


def _front_matter(text: str) -> tuple[str | None, str]:
    """(title, url); a front matter that is no YAML says nothing."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return None, ""
    if not isinstance(value, dict):
        return None, ""
    url = str(value.get("url") or value.get("source") or "")
    title = value.get("title")
    return (title if isinstance(title, str) else None), url if url.startswith(("http://", "https://")) else ""


def _without_comments(text: str) -> str:
    """Comments may hide headings, but what looks like one within a code fence is code."""
    parts = re.split(r"(^ {0,3}(?:```|~~~)[\s\S]*?^ {0,3}(?:```|~~~)[^\n]*$)", text, flags=re.MULTILINE)
    return "".join(part if index % 2 else COMMENT.sub("", part) for index, part in enumerate(parts))


def plain_heading(text: str) -> str:
    """The heading's words: no anchor, link target or emphasis."""
    text = LINK.sub(r"\1", ANCHOR.sub("", text))
    return re.sub(r"<[^>]+>", "", EMPHASIS.sub(r"\2", text)).strip().lstrip("# ")


def visible(text: str) -> str:
    """Prose without components, bare tags and imports."""
    text = FOOTNOTE.sub("", OBSIDIAN_TAGS.sub("", CALLOUT.sub("> ", text)))
    text = WIKI_LINK.sub(lambda link: "" if link[0].startswith("!") else link[2] or link[1], text)
    text = CITATION.sub("", text)
    text = TAGS_ONLY.sub("", IMPORT.sub("", COMPONENT.sub("", text)))
    text = INLINE.sub(lambda match: match["code"] or ("\n" if match["br"] else ""), text)
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE))


def is_prose(text: str) -> bool:
    """False for sections of links, pictures and little else."""
    return len(PROSE.sub("", LINK.sub("", text))) >= MIN_TEXT
