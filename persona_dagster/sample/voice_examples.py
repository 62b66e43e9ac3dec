"""Which of the sample's answers were written for a voice, by where they stand: what the voice judge learns from.

No selector has a say: on Dcard the well-liked comments of mood and relationship were written for the mentor (jokers get
few likes), PTT's Hate pushes and the liked Threads replies for the mouthpiece, the primer's answers for the assistant.
Files 5 (posts answered in both voices) and 9 (written for other purposes) are left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from persona_dagster.sample.content_loader import NOTES, PACKAGED, DcardItem, PttItem, ThreadsItem, read_items

LIKED = {"dcard": 15, "threads": 100}
MIXED = ("5", "9")


class WrittenAnswer(NamedTuple):
    voice: str
    question: str
    answer: str


def written_answers() -> Iterator[WrittenAnswer]:
    """Every such answer with the post that it stands under."""
    for path in _files("dcard", "mood-*.yaml", "relationship-*.yaml"):
        for post in read_items(path, DcardItem):
            liked = [comment.text for comment in post.comments if comment.likes >= LIKED["dcard"] and comment.text]
            yield from (WrittenAnswer("mentor", f"{post.title}\n{post.content}", text) for text in liked)
    for path in _files("ptt", "Hate-*.yaml"):
        for article in read_items(path, PttItem):
            pushes = [push.text for push in article.pushes if push.tag == "推" and not article.pinned]
            yield from (WrittenAnswer("mouthpiece", f"{article.title}\n{article.body}", text) for text in pushes)
    for path in _files("threads", "*.yaml"):
        for opening in read_items(path, ThreadsItem):
            replies = [reply.text for reply in opening.replies if reply.likes >= LIKED["threads"] and reply.text]
            yield from (WrittenAnswer("mouthpiece", opening.text or "", text) for text in replies)
    for line in (NOTES / "extra.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield WrittenAnswer("assistant", row["question"], row["answer"])


def _files(site: str, *patterns: str) -> list[Path]:
    found = [path for pattern in patterns for path in (PACKAGED / site).glob(pattern)]
    return sorted(path for path in found if not path.stem.endswith(MIXED))
