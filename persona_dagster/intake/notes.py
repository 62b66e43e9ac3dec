"""NLP notes: Markdown, MDX and question/answer JSONL → a post a section, whose title asks and whose text answers.

A capture holds a whole file. Headings count only outside code fences; what a reader never sees (front matter,
components, comments, anchors) is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import orjson
import yaml

from persona_dagster.digest import sha256, text_digest
from persona_dagster.records import Capture, Outcome, Post
from persona_dagster.sites.parsed import AuthorKey, MalformedError, Parsed, decode, incomplete

MARKDOWN = (".md", ".mdx", ".markdown")
SUFFIXES = (*MARKDOWN, ".jsonl")
MIN_TEXT = 20  # characters of prose below which a section only holds a link or a picture

FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)$")
HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*$")
UNDERLINE = re.compile(r" {0,3}=+[ \t]*$")
ANCHOR = re.compile(r"\s*(?:\[\[[^\]]*\]\]|\{#[^}]*\})\s*$")
LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
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

    def text(self) -> str:
        """The section's Markdown as a reader's eye has it; code stays as it is."""
        runs = ((code, "\n".join(line for _, line in run)) for code, run in groupby(self.blocks, key=itemgetter(0)))
        return "\n".join(text if code else visible(text) for code, text in runs).strip()


def read_notes(folder: Path) -> Iterator[Capture]:
    """A capture a file below `folder`, in the order of their paths; the board is the file's name without suffix.

    A name that several folders use (`chapter1/5.mdx`) is joined with its folders'.
    """
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES and path.is_file()]
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
    try:
        text = decode(capture.body).replace("\r\n", "\n")
        if capture.key.lower().endswith(".jsonl"):
            return Parsed(Outcome.OK, _unique(capture, "", list(_questions(text))))
        url, sections = split_sections(text)
    except MalformedError as error:
        return incomplete(f"{capture.key}: {error}")
    found = [(section.title, body) for section in sections if section.title and is_prose(body := section.text())]
    return Parsed(Outcome.OK, _unique(capture, url, [(title or "", body) for title, body in found]))


def _unique(capture: Capture, url: str, found: list[tuple[str, str]]) -> list[Post]:
    """Posts named by file and heading: an edited section keeps its name, a second one of that heading gets its own."""
    seen: dict[str, int] = {}
    posts = []
    for title, body in found:
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
                title=title,
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
    fence = ""
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
            sections.append(Section(plain_heading(heading[2]) or None))
        elif UNDERLINE.match(following) and line.strip() and "=" not in line:
            sections.append(Section(plain_heading(line)))
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
    text = TAGS_ONLY.sub("", IMPORT.sub("", COMPONENT.sub("", text)))
    text = INLINE.sub(lambda match: match["code"] or ("\n" if match["br"] else ""), text)
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE))


def is_prose(text: str) -> bool:
    """False for sections of links, pictures and little else."""
    return len(PROSE.sub("", LINK.sub("", text))) >= MIN_TEXT
