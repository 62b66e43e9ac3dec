"""Drawing tokens so that an answer is its prompt's own: seeded by prompt, not by batch.

transformers draws all rows of a batch from one stream: a prompt more, and every answer is another. Here each row has
its own numbers, and base and adapter the same ones, so that (up to rounding) an adapter that changes nothing changes
no answer. One number a token, by the inverse of the cumulated probabilities: `torch.multinomial` draws one for every
token of the vocabulary. Logits that are NaN give the vocabulary's last token; the gates of loss and knowledge tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class Draw:
    """The last logits processor of a greedy generation: leaves one token to each row, drawn at `temperature` from the
    likeliest ones that make up `top_p`. `seeds`: one a row."""

    def __init__(self, seeds: Sequence[int], temperature: float, top_p: float) -> None:
        import torch
        from transformers import TopPLogitsWarper

        self.streams = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.temperature = temperature
        self.cut = TopPLogitsWarper(top_p) if top_p < 1 else None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Logits [rows, vocabulary] → the same with -inf everywhere but at the drawn token."""
        import torch

        scores = scores / self.temperature
        if self.cut is not None:
            scores = self.cut(input_ids, scores)
        cumulated = torch.softmax(scores.float(), dim=-1).cumsum(dim=-1)
        numbers = torch.stack([torch.rand(1, generator=stream) for stream in self.streams]).to(scores.device)
        # To the right of the number, so that a token of no probability is never the one.
        drawn = torch.searchsorted(cumulated, numbers * cumulated[:, -1:], right=True)
        drawn = drawn.clamp(max=scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, drawn, 0.0)
