"""Dcard pages as the server renders them: the posts that a forum's page lists, and the text of a post's own page.

Reported for 2026 (SITES.md): the first page of a forum and each post arrive as HTML, the text within `<article>`.
Class names change with every release and are not looked at; what is: links to posts, headings, `<time>`, text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from html.parser import HTMLParser

from persona_dagster.records import Post
from persona_dagster.sites.json_validation import moment
from persona_dagster.sites.parser_results import MalformedError

ORIGIN = "https://www.dcard.tw"
POST_LINK = re.compile(r"(?:https://www\.dcard\.tw)?/f/([A-Za-z0-9_-]+)/p/(\d{1,12})(?:[-/?#].*)?$")
BLOCKS = frozenset(["p", "div", "br", "li", "section", "header", "footer", "h1", "h2", "h3", "time"])
UNSEEN = frozenset(["script", "style", "noscript", "template", "button"])
VOID = frozenset(["br", "img", "input", "meta", "link", "hr", "source", "wbr"])


@dataclass(slots=True)
class Rendered:
    """One `<article>`."""

    links: list[tuple[str, str]] = field(default_factory=list)  # forum and id of posts
    heading: str = ""
    level: str = ""  # h1 | h2 | h3
    at: str = ""  # of the first <time datetime>
    text: list[str] = field(default_factory=list)


class _ArticleReader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.articles: list[Rendered] = []
        self.depth = 0  # of articles
        self.unseen = 0
        self.heading = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in UNSEEN:
            self.unseen += 1
        if tag == "article":
            self.depth += 1
            if self.depth == 1:
                self.articles.append(Rendered())
            return
        if not self.depth:
            return
        here, named = self.articles[-1], dict(attrs)
        if tag == "a" and (found := POST_LINK.match(named.get("href") or "")):
            here.links.append((found[1], found[2]))
        elif tag in ("h1", "h2", "h3") and not here.heading:
            self.heading, here.level = tag, tag
        elif tag == "time" and not here.at:
            here.at = named.get("datetime") or ""
        if tag in BLOCKS:
            here.text.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in UNSEEN:
            self.unseen = max(self.unseen - 1, 0)
        if tag == "article":
            self.depth = max(self.depth - 1, 0)
        elif self.depth:
            if tag == self.heading:
                self.heading = ""
            if tag in BLOCKS:
                self.articles[-1].text.append("\n")

    def handle_data(self, data: str) -> None:
        if self.depth and not self.unseen:
            if self.heading:
                self.articles[-1].heading += data
            else:
                self.articles[-1].text.append(data)


def rendered(source: str) -> list[Rendered]:
    """Every outermost `<article>` of a whole page."""
    if not source.rstrip().endswith("</html>"):
        raise MalformedError("the page does not end with </html>")
    reader = _ArticleReader()
    reader.feed(source)
    reader.close()
    if reader.depth:
        raise MalformedError("an <article> that does not end")
    return reader.articles


def _moment(text: str) -> datetime | None:
    try:
        return moment(text)
    except ValueError:
        return None


def listed(source: str, forum: str) -> list[tuple[str, datetime | None]]:
    """Ids and times of the posts that a forum's page shows, in its order, each once."""
    found: dict[str, datetime | None] = {}
    for article in rendered(source):
        for alias, key in article.links[:1]:
            if alias == forum:
                found.setdefault(key, _moment(article.at))
    return list(found.items())


def post_of(source: str, post_id: str, board: str) -> Post:
    """The post of its own page, without its comments. Raises `MalformedError` when it is not there whole."""
    articles = [article for article in rendered(source) if article.level == "h1"]
    if len(articles) != 1:
        raise MalformedError(f"{len(articles)} articles with a heading of their own")
    text = re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]*\n[ \t]*", "\n", "".join(articles[0].text))).strip()
    created = _moment(articles[0].at)
    if not text or created is None:
        raise MalformedError("an article without its text or its time")
    return Post(
        source="dcard",
        board=board,
        kind="post",
        post_id=post_id,
        url=f"{ORIGIN}/f/{board}/p/{post_id}",
        text_raw=text,
        thread_id=post_id,
        created_at=created,
        title=articles[0].heading.strip(),
        flags=["rendered"],
    )
