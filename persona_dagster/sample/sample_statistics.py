"""How much the sample holds, and how little of it repeats: the count behind "written by hand, not spun"."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import orjson

from persona_dagster.sample.content_loader import NOTES, PACKAGED, Content, DcardItem, PttItem, answers, load

NEAR = 0.7  # Jaccard of character 3-grams from which two texts are called the same, as in the corpus
SHORT = 5  # normalised characters below which only equal texts are: 推 and 笑死 repeat by nature


@dataclass(frozen=True)
class Report:
    posts: int
    comments: int
    notes: int
    dialogues: int
    texts: int  # all of the above with text
    near_duplicates: tuple[tuple[str, str, float], ...]  # (repeated text, what it repeats, Jaccard), starts only

    @property
    def survival(self) -> float:
        """Share of the texts that a near-duplicate step keeps."""
        return 1 - len(self.near_duplicates) / max(1, self.texts)


def report(content: Content | None = None) -> Report:
    """Counts the packaged sample, days to come included, and compares every text with every other."""
    content = content or load()
    items = [item for _, _, item in content.items()]
    notes, dialogues = list(note_texts()), list(dialogue_texts())
    comments = sum(answers(item) for item in items)
    texts = [*item_texts(content), *notes, *dialogues]
    return Report(len(items), comments, len(notes), len(dialogues), len(texts), tuple(near_duplicates(texts)))


def item_texts(content: Content) -> Iterator[str]:
    """The words of every post and of every answer to it."""
    for _, _, item in content.items():
        if isinstance(item, PttItem):
            parts = [item.body, *(push.text for push in item.pushes)]
        elif isinstance(item, DcardItem):
            parts = [item.content, *(comment.text for comment in item.comments)]
        else:
            parts = [item.text or "", *item.more, *(reply.text or "" for reply in item.replies)]
        yield from (part for part in parts if part.strip())


def note_texts() -> Iterator[str]:
    """The primer's sections: what follows each `## question`, and the answers of its JSONL."""
    for path in sorted(NOTES.glob("*")):
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".md":
            yield from (section.split("\n", 1)[-1] for section in text.split("\n## ")[1:])
        elif path.suffix == ".jsonl":
            yield from (orjson.loads(line)["answer"] for line in text.splitlines() if line.strip())


def dialogue_texts() -> Iterator[str]:
    for line in (PACKAGED / "capybara.jsonl").read_text(encoding="utf-8").splitlines():
        yield "\n".join(message["content"] for message in orjson.loads(line)["messages"])


def shingles(text: str) -> frozenset[str]:
    """Character 3-grams of the letters and digits alone; a short text is its own single shingle."""
    plain = "".join(character for character in text.lower() if character.isalnum())
    return frozenset([plain]) if len(plain) < SHORT else frozenset(plain[i : i + 3] for i in range(len(plain) - 2))


def near_duplicates(texts: Sequence[str]) -> Iterator[tuple[str, str, float]]:
    """Each text that repeats an earlier one, by an exact count of common shingles over an inverted index."""
    holders: dict[str, list[int]] = {}
    sets: list[frozenset[str]] = []
    for index, text in enumerate(texts):
        mine = shingles(text)
        common = Counter(other for shingle in mine for other in holders.get(shingle, ()))
        best = max(
            ((shared / (len(mine) + len(sets[other]) - shared), -other) for other, shared in common.items()),
            default=(0.0, 0),
        )
        if best[0] >= NEAR:
            yield text[:60], texts[-best[1]][:60], round(best[0], 3)
        sets.append(mine)
        for shingle in mine:
            holders.setdefault(shingle, []).append(index)
