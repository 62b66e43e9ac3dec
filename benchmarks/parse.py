"""Speed and content of the PTT parser against a usual BeautifulSoup one, on the real pages.

The peer is what most published PTT crawlers do: metalines by class, pushes by class, the rest is text. Content is
counted as pushes with all their parts, titles, authors and times found.
"""

from __future__ import annotations

import time

from real_data import real_data

from persona_dagster.sites.ptt.article import parse_article

PASSES = 5


def pages() -> list[tuple[str, str, bytes]]:
    folder = real_data("pages", "ptt_html")
    paths = sorted([*folder.glob("article/*"), *folder.glob("article_fragment/*")])
    return [(*path.stem.split("__", 1), path.read_bytes()) for path in paths]


def usual(body: bytes, builder: str) -> dict[str, object]:
    """A usual crawler's parser."""
    from bs4 import BeautifulSoup

    main = BeautifulSoup(body, builder).find(id="main-content")
    values = [tag.text for tag in main.select("span.article-meta-value")]
    found: dict[str, object] = dict(zip(("author", "board", "title", "time"), values, strict=False))
    pushes = []
    for push in main.find_all("div", class_="push"):
        parts = [
            push.find("span", class_=name) for name in ("push-tag", "push-userid", "push-content", "push-ipdatetime")
        ]
        if all(parts):
            pushes.append(tuple(part.text.strip() for part in parts))
        push.extract()
    for meta in main.select("div.article-metaline, div.article-metaline-right"):
        meta.extract()
    return {**found, "pushes": pushes, "text": main.text}


def timed(work) -> float:
    """Best CPU seconds of some passes."""
    best = float("inf")
    for _ in range(PASSES):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best


def main() -> None:
    everything = pages()

    def ours() -> list:
        return [
            parse_article(body, board=board, article_id=name, author_key=lambda user: user)
            for board, name, body in everything
        ]

    parsed, peer = ours(), [usual(body, "html.parser") for _, _, body in everything]
    seconds = {
        "persona_dagster": timed(ours),
        "BeautifulSoup html.parser": timed(lambda: [usual(body, "html.parser") for _, _, body in everything]),
        "BeautifulSoup lxml": timed(lambda: [usual(body, "lxml") for _, _, body in everything]),
    }
    print(f"{len(everything)} real articles, {sum(len(body) for *_, body in everything) / 1e6:.1f} MB, CPU")
    print("| parser | ms/page | against ours |\n|---|---|---|")
    for name, spent in seconds.items():
        print(f"| {name} | {1000 * spent / len(everything):.2f} | {spent / seconds['persona_dagster']:.1f}× |")
    roots = [result.posts[0] for result in parsed]
    rows = (
        ("articles with title", sum(bool(root.title) for root in roots), sum("title" in one for one in peer)),
        ("articles with author", sum(bool(root.author_key) for root in roots), sum("author" in one for one in peer)),
        ("articles with a time", sum(bool(root.created_at) for root in roots), sum("time" in one for one in peer)),
        ("pushes dated with their year", sum(bool(p.created_at) for r in parsed for p in r.posts if p.tag), 0),
        ("author's replies between pushes", sum(p.kind == "reply" for r in parsed for p in r.posts), 0),
        (
            "pasted pushes taken for answers",
            0,
            sum(len(one["pushes"]) for one in peer) - sum(p.kind == "comment" for r in parsed for p in r.posts),
        ),
        (
            "hidden addresses left undecoded",
            sum("[email" in p.text_raw for r in parsed for p in r.posts),
            sum(str(one).count("[email") for one in peer),
        ),
    )
    print("\n| content | ours | BeautifulSoup |\n|---|---|---|")
    for name, mine, theirs in rows:
        print(f"| {name} | {mine} | {theirs} |")


if __name__ == "__main__":
    main()
