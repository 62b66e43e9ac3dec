"""BERTScore: how close an answer is to its reference, token by token, in an encoder's space.

P, R and F1 in [-1, 1], in practice far above 0: a raw value says nothing without its encoder, layer and
baseline, so all are recorded. Rescaled: (raw - b) / (1 - b), b = the mean over unrelated pairs; 0 is chance,
1 a verbatim copy. Source: Zhang et al. 2020, arXiv:1904.09675; same values as `bert_score` 0.3.13 (tests).
"""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from persona_dagster.digest import keyed_hash
from persona_dagster.models.encoder import Encoder

if TYPE_CHECKING:
    import torch

BATCH_TOKENS = 1024  # padded tokens a batch: what a small CPU's cache holds (4096 take a fifth longer)
SENTENCE_CHARS = 200  # of a text that its sentence vector is of: a long post says early what it is about
BASELINE_PAIRS = 400
BASELINE_TEXTS = 100
CHECKED = 8  # pairs that `evaluate` scores too: enough to see another layer, tokenizer or weighting


@dataclass(frozen=True)
class Baseline:
    """Mean P, R, F1 of unrelated pairs, and where they come from."""

    values: tuple[float, float, float]
    source: str
    pairs: int

    def rescale(self, scores: np.ndarray) -> np.ndarray:
        """`scores` (n, 3) with 0 at chance."""
        base = np.asarray(self.values)
        return np.asarray((scores - base) / (1 - base))


class Scorer:
    """Scores pairs with one encoder; each text is encoded once, however many pairs it stands in."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._known: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def score(self, candidates: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """(n, 3) float64: P, R, F1 of each pair. A pair with an empty side scores 0, where `bert_score` raises."""
        import torch

        pairs = [(c.strip(), r.strip()) for c, r in zip(candidates, references, strict=True)]
        self._encode({text for pair in pairs for text in pair})
        scores = np.zeros((len(pairs), 3))
        with torch.inference_mode():
            for place, (candidate, reference) in enumerate(pairs):
                if not candidate or not reference:
                    continue
                vectors, weights = self._known[candidate]
                others, other_weights = self._known[reference]
                # Special tokens can be matched, but have no weight of their own, as in the reference.
                similar = vectors @ others.T
                precision = float((similar.max(dim=1).values * weights).sum() / weights.sum())
                recall = float((similar.max(dim=0).values * other_weights).sum() / other_weights.sum())
                total = precision + recall
                scores[place] = precision, recall, 2 * precision * recall / total if total else 0.0
        return scores

    def sentences(self, texts: Sequence[str]) -> np.ndarray:
        """(n, width) unit vectors: the mean of a text's token vectors, specials left out; zeros for an empty text."""
        kept = [text.strip()[:SENTENCE_CHARS] for text in texts]
        self._encode({text for text in kept if text})
        found = np.zeros((len(kept), self.encoder.model.config.hidden_size), dtype=np.float32)
        for place, text in enumerate(kept):
            if text:
                vectors, weights = self._known[text]
                mean = (vectors * weights.unsqueeze(-1)).sum(dim=0)
                found[place] = (mean / mean.norm().clamp(min=1e-9)).numpy()
        return found

    def baseline(self, texts: Sequence[str], seed: int = 0) -> Baseline:
        """The published baseline of a known encoder; else that of `texts` against each other's.

        The pairs are chosen by keyed hash from all ordered pairs of (at most `BASELINE_TEXTS`) different texts.
        """
        published = _published(self.encoder)
        if published is not None:
            return published
        distinct = sorted(set(filter(None, (text.strip() for text in texts))), key=lambda text: keyed_hash("", text))
        distinct = sorted(distinct[:BASELINE_TEXTS])  # all pairs of thousands would take minutes
        pairs = [(a, b) for a in distinct for b in distinct if a != b]
        pairs = sorted(pairs, key=lambda pair: keyed_hash(str(seed), *pair))[:BASELINE_PAIRS]
        if not pairs:
            return Baseline((0.0, 0.0, 0.0), "none: fewer than two texts", 0)
        means = self.score(*zip(*pairs, strict=True)).mean(axis=0)
        return Baseline((float(means[0]), float(means[1]), float(means[2])), "shuffled pairs of references", len(pairs))

    def _encode(self, texts: set[str]) -> None:
        new = [text for text in texts if text and text not in self._known]
        lengths = [len(ids) for ids in self.encoder.tokenizer(new)["input_ids"]] if new else []
        # By tokens, not by words: Chinese has no spaces, and a batch of mixed lengths is mostly padding.
        ordered = sorted(zip(lengths, new, strict=True))
        start = 0
        while start < len(ordered):
            end = start + 1
            while end < len(ordered) and (end + 1 - start) * ordered[end][0] <= BATCH_TOKENS:
                end += 1
            batch = [text for _, text in ordered[start:end]]
            unit, mask, content = self.encoder.embed(batch)
            for place, text in enumerate(batch):
                kept = mask[place]
                weights = content[place][kept].float()
                # A text of nothing but specials would divide by zero.
                self._known[text] = (unit[place][kept], weights if weights.any() else weights + 1)
            start = end


def with_evaluate(
    encoder: Encoder, candidates: Sequence[str], references: Sequence[str], metric: str = "bertscore"
) -> np.ndarray:
    """(n, 3) from Hugging Face `evaluate`, whose metric script lies on the Hub (or in the folder `metric`).

    Slower than `Scorer` (it pads by words and knows no empty answers): where the Hub is there, the report checks
    our values against it.
    """
    import evaluate

    found = evaluate.load(metric).compute(
        predictions=list(candidates),
        references=list(references),
        model_type=encoder.path,
        num_layers=encoder.layer,
        lang="zh",
    )
    return np.array([found["precision"], found["recall"], found["f1"]], dtype=float).T


def checked(scorer: Scorer, candidates: Sequence[str], references: Sequence[str], metric: str = "bertscore") -> str:
    """What `evaluate` says to the first CHECKED pairs, in a sentence for the report; a missing Hub is told too."""
    pairs = [(a, b) for a, b in zip(candidates, references, strict=True) if a.strip() and b.strip()][:CHECKED]
    if not pairs:
        return "no pairs to check"
    try:
        ours, human = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        theirs = with_evaluate(scorer.encoder, ours, human, metric)
    except (OSError, ImportError, ValueError) as error:
        return f"not checked against evaluate: {str(error).splitlines()[0]}"
    apart = float(np.abs(scorer.score(ours, human) - theirs).max())
    return f"{len(pairs)} pairs checked against evaluate: at most {apart:.0e} apart"


def _published(encoder: Encoder) -> Baseline | None:
    """The baseline that `bert_score` ships for encoder and layer, if it does."""
    found = importlib.util.find_spec("bert_score")
    if found is None or found.origin is None:
        return None
    for language in ("zh", "en"):
        path = Path(found.origin).parent / "rescale_baseline" / language / f"{encoder.name}.tsv"
        if path.is_file():
            with path.open(encoding="utf-8") as file:
                row = list(csv.DictReader(file))[encoder.layer]
            values = (float(row["P"]), float(row["R"]), float(row["F"]))
            return Baseline(values, f"bert_score, {language}, layer {encoder.layer}", 1_000_000)
    return None
