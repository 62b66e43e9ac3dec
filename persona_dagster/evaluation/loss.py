"""How likely a model finds an answer: test loss, perplexity, and the choice between a right and wrong answers.

Loss is the mean negative log-likelihood of the answer's tokens and its end token, in nats a token, over all
tokens of the set (so that long answers count for their length); perplexity is its exponential (>= 1).
Source: the language-modelling loss of `transformers`, with the mask of `dialogue.chat_format`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from persona_dagster.models.chat_format import IGNORED, Message, encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LIKELIHOOD_SCHEMA = pl.Schema(
    {
        "key": pl.String,  # a row_id, or the id of a knowledge probe
        "suite": pl.String,  # test | train | knowledge
        "persona": pl.String,
        "model": pl.String,  # base | adapter
        "option": pl.Int32,  # 0: the reference or right answer; 1…: wrong ones
        "nats": pl.Float64,  # over the answer, its end token included
        "tokens": pl.Int32,
        "chars": pl.Int32,  # of the answer as it was scored: what compares over tokenizers
    }
)
# Hidden states are cheap, logits are not: 2,048 padded tokens a batch keep the answer's logits under 400 MB.
BATCH_TOKENS = 2048
LOGIT_ROWS = 128  # 134 MB of logits where the vocabulary has 262 k tokens


@dataclass(frozen=True)
class ScoredAnswer:
    """A dialogue whose last answer is to be scored."""

    key: str
    suite: str
    persona: str
    messages: list[Message]
    option: int = 0


def likelihoods(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[ScoredAnswer],
    *,
    max_length: int,
    name: str,
) -> pl.DataFrame:
    """A frame of LIKELIHOOD_SCHEMA; rows whose answer does not fit `max_length` are left out."""
    encoded = [(row, encode(row.messages, tokenizer, max_length)) for row in rows]
    fitting = [(row, one) for row, one in encoded if one is not None]
    fitting.sort(key=lambda pair: len(pair[1].input_ids))
    records = []
    start = 0
    while start < len(fitting):
        end = start + 1
        while end < len(fitting) and (end + 1 - start) * len(fitting[end][1].input_ids) <= BATCH_TOKENS:
            end += 1
        batch = fitting[start:end]
        inputs, labels = [one.input_ids for _, one in batch], [one.labels for _, one in batch]
        sums = batch_nats(model, inputs, labels, tokenizer.pad_token_id)
        for (row, one), (nats, tokens) in zip(batch, sums, strict=True):
            chars = len(one.messages[-1]["content"])
            records.append((row.key, row.suite, row.persona, name, row.option, nats, tokens, chars))
        start = end
    return pl.DataFrame(records, schema=LIKELIHOOD_SCHEMA, orient="row")


def batch_nats(model: Any, inputs: list[list[int]], labels: list[list[int]], pad: int) -> list[tuple[float, int]]:
    """Per row: summed negative log-likelihood of the labelled tokens, and their number."""
    import torch

    device = next(model.parameters()).device
    width = max(map(len, inputs))
    ids = torch.full((len(inputs), width), pad, device=device)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(inputs):
        ids[place, : len(row)] = torch.tensor(row)
        mask[place, : len(row)] = 1
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    with torch.inference_mode():
        hidden = getattr(causal, causal.base_model_prefix)(input_ids=ids, attention_mask=mask)[0]
        targets = torch.full((len(labels), width - 1), IGNORED, device=device)
        for place, row in enumerate(labels):
            targets[place, : len(row) - 1] = torch.tensor(row[1:], device=device)
        rows, places = (targets != IGNORED).nonzero(as_tuple=True)
        nats = torch.zeros(len(labels), dtype=torch.float64)
        # Logits at the answers alone, and of many answers at once: the head of a large vocabulary costs as much to read
        # as to multiply (Gemma's 262 k: 671 MB each time).
        for part in torch.arange(len(rows)).split(LOGIT_ROWS):
            at = (rows[part], places[part])
            logits = causal.get_output_embeddings()(hidden[at]).float()
            lost = torch.nn.functional.cross_entropy(logits, targets[at], reduction="none")
            nats.index_add_(0, rows[part].cpu(), lost.double().cpu())
    counts = (targets != IGNORED).sum(dim=1).tolist()
    return [(float(value), int(count)) for value, count in zip(nats, counts, strict=True)]


def perplexity(loss: float | None) -> float | None:
    return None if loss is None else float(np.exp(min(loss, 50)))


def choices(frame: pl.DataFrame) -> pl.DataFrame:
    """Per (key, model): whether the sentence with the right answer is the likeliest. Chance is 1 / options.

    By summed nats: the sentences of one probe differ in one word, and a mean a token would favour the word that
    the tokenizer cuts into more pieces.
    """
    best = (
        frame.filter(pl.col("suite") == "knowledge")
        .sort("nats", "option")
        .group_by("key", "model", maintain_order=True)
        .first()
    )
    # Where all are NaN the right one comes first: that is no choice.
    right = (pl.col("option") == 0) & pl.col("nats").is_finite()
    return best.select("key", "model", right=right).sort("key", "model")
