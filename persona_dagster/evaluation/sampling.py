"""Drawing tokens so that an answer is its prompt's own: seeded by prompt, not by batch.

transformers draws all rows of a batch from one stream: a prompt more, and every answer is another. Here each row has
its own numbers, and base and adapter the same ones, so that (up to rounding) an adapter that changes nothing changes
no answer. One number a token, by the inverse of the cumulated probabilities: `torch.multinomial` draws one for every
token of the vocabulary, and sorting 262 k logits a row would cost more than the model. Logits that are NaN give any
token; the gates of loss and knowledge tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

TOP_K = 64  # what lies beyond has a few thousandths of the probability, and is where other languages slip in


class Draw:
    """The last logits processor of a greedy generation: leaves one token to each row, drawn at `temperature` from the
    likeliest ones that make up `top_p`, of the `TOP_K` likeliest. `seeds`: one a row."""

    def __init__(self, seeds: Sequence[int], temperature: float, top_p: float) -> None:
        import torch

        self.streams = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.temperature, self.top_p = temperature, top_p

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Logits [rows, vocabulary] → the same with -inf everywhere but at the drawn token."""
        import torch

        likeliest, tokens = scores.float().topk(min(TOP_K, scores.shape[-1]))  # in falling order
        cumulated = torch.softmax(likeliest / self.temperature, dim=-1).cumsum(dim=-1)
        # The first token whose probability, with that of the likelier ones, reaches top_p is the last one left.
        last = (cumulated < self.top_p).sum(dim=-1, keepdim=True).clamp(max=tokens.shape[-1] - 1)
        numbers = torch.stack([torch.rand(1, generator=stream) for stream in self.streams]).to(scores.device)
        # To the right of the number, so that a token of no probability is never the one.
        place = torch.searchsorted(cumulated, numbers * cumulated.gather(1, last), right=True)
        drawn = tokens.gather(1, torch.minimum(place, last))
        return torch.full_like(scores, -torch.inf).scatter(1, drawn, 0.0)
