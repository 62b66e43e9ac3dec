"""Collapse: answers that loop, are empty or cut, or all begin alike.

Units are characters for Han script and words for Latin (`units`), so that zh and en count alike. Sources: rep-n
Welleck et al. 2020, distinct-n Li et al. 2016, self-BLEU Zhu et al. 2018 with sacrebleu's sentence BLEU.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

_UNITS = re.compile(r"[A-Za-z0-9]+|[^\sA-Za-z0-9]")
_END = re.compile(r"[。！？!?.…~～」』）)]\s*$")
OPENING = 8  # units: shorter openings are shared by people too (「抱抱你」, 「什麼是」)
LOOP = 0.5  # rep-4 from here on is a loop: human answers of these boards stay under .2


def units(text: str) -> list[str]:
    """Words of Latin script and single other characters."""
    return _UNITS.findall(text)


def ngrams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(tokens[place : place + n]) for place in range(len(tokens) - n + 1)]


def repetition(text: str, n: int = 4) -> float:
    """rep-n: the share of n-grams that repeat an earlier one, 0 (none) to 1; 0 for texts under n units."""
    grams = ngrams(units(text), n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def distinct(texts: Sequence[str], n: int) -> float | None:
    """distinct-n: different n-grams over all n-grams of the set, 0 to 1; None without any."""
    grams = [gram for text in texts for gram in ngrams(units(text), n)]
    return len(set(grams)) / len(grams) if grams else None


def distinct_without(texts: Sequence[str], groups: Sequence[str], n: int) -> dict[str, float]:
    """distinct-n of the set without each group of texts in turn; groups without which nothing is left stay out."""
    owners: dict[tuple[str, ...], set[str]] = defaultdict(set)
    sizes: Counter[str] = Counter()
    for text, group in zip(texts, groups, strict=True):
        grams = ngrams(units(text), n)
        sizes[group] += len(grams)
        for gram in grams:
            owners[gram].add(group)
    alone = Counter(next(iter(owning)) for owning in owners.values() if len(owning) == 1)
    total = sum(sizes.values())
    return {group: (len(owners) - alone[group]) / (total - size) for group, size in sizes.items() if size < total}


def sentence_bleu(hypothesis: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """BLEU-4 in 0-100, exponential smoothing and effective order: sacrebleu's sentence_bleu over given units."""
    reference_counts = [[Counter(ngrams(reference, n)) for n in range(1, 5)] for reference in references]
    return _bleu(hypothesis, reference_counts, [len(reference) for reference in references])


def _bleu(hypothesis: Sequence[str], counted: list[list[Counter[tuple[str, ...]]]], lengths: list[int]) -> float:
    if not hypothesis or not counted:
        return 0.0
    closest = min(lengths, key=lambda length: (abs(length - len(hypothesis)), length))
    logs, smooth = [], 1.0
    for n in range(1, 5):
        grams = Counter(ngrams(hypothesis, n))
        total = sum(grams.values())
        if not total:
            break
        matched = sum(min(count, max(one[n - 1][gram] for one in counted)) for gram, count in grams.items())
        if n == 1 and not matched:
            return 0.0
        if not matched:
            smooth *= 2
            logs.append(math.log(100 / (smooth * total)))
        else:
            logs.append(math.log(100 * matched / total))
    brevity = min(1.0, math.exp(1 - closest / len(hypothesis)))
    return brevity * math.exp(sum(logs) / len(logs))


def alikeness(texts: Sequence[str]) -> list[float | None]:
    """BLEU of each text against all others, 0-100; None for a blank text, and for all where fewer than two speak."""
    tokenised = [units(text) for text in texts]
    spoken = [place for place, tokens in enumerate(tokenised) if tokens]
    scores: list[float | None] = [None] * len(texts)
    if len(spoken) < 2:
        return scores
    counted = {place: [Counter(ngrams(tokenised[place], n)) for n in range(1, 5)] for place in spoken}
    for place in spoken:
        others = [other for other in spoken if other != place]
        lengths = [len(tokenised[other]) for other in others]
        scores[place] = _bleu(tokenised[place], [counted[other] for other in others], lengths)
    return scores


def self_bleu(texts: Sequence[str]) -> float | None:
    """The mean of `alikeness`: high means that they all say the same. None under two texts."""
    scores = [score for score in alikeness(texts) if score is not None]
    return sum(scores) / len(scores) if scores else None


def broken(answer: str, finish: str, fits: bool, off: bool = False) -> str | None:
    """Why an answer is none: `empty`, `looping`, or `cut` (ran into the limit although its reference fits it, or ended
    by itself and breaks `off`)."""
    if not answer.strip():
        return "empty"
    if repetition(answer) >= LOOP:
        return "looping"
    cut = fits and not _END.search(answer) if finish == "length" else off
    return "cut" if cut else None


def identical_openings(texts: Sequence[str]) -> float | None:
    """The share of texts that begin with the commonest opening of OPENING units; None without any text.

    Answers shorter than that count with their whole text. A set of all different openings gives 1 / n, so the
    first of each kind is not counted: 0 means that no two begin alike.
    """
    openings = Counter("".join(units(text)[:OPENING]) for text in texts if text.strip())
    total = sum(openings.values())
    return (max(openings.values()) - 1) / total if total else None
