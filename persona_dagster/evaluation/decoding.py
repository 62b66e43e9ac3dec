"""Answers, a batch at a time: each drawn by its prompt's own numbers, and out of the batch once it has ended.

transformers' `generate` draws all rows of a batch from one stream (a prompt more, and every answer is another), sorts
the whole vocabulary for `top_p` (262 k logits a row cost more than the model), and computes rows that have ended until
the longest has: most of the work, where one model rambles and the other stops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from persona_dagster.models.prefix_cache import shared_start

if TYPE_CHECKING:
    from torch import Tensor

TOP_K = 64  # what lies beyond has a few thousandths of the probability, and is where other languages slip in


class Draw:
    """One token a row, drawn at `temperature` (0: the likeliest) from the likeliest ones that make up `top_p`, of the
    `TOP_K` likeliest. `seeds`: one a row; base and adapter draw with the same numbers, so that (up to rounding) an
    adapter that changes nothing changes no answer. Logits that are NaN give any token; the gates of loss and knowledge
    tell."""

    def __init__(self, seeds: Sequence[int], temperature: float, top_p: float) -> None:
        import torch

        self.streams = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.temperature, self.top_p = temperature, top_p

    def __call__(self, scores: Tensor, rows: Sequence[int]) -> Tensor:
        """Logits [rows, vocabulary] of the rows of these numbers → tokens [rows]."""
        import torch

        if self.temperature == 0:
            return scores.argmax(dim=-1)
        likeliest, tokens = scores.topk(min(TOP_K, scores.shape[-1]))  # in falling order
        cumulated = torch.softmax(likeliest / self.temperature, dim=-1).cumsum(dim=-1)
        # The first token whose probability, with that of the likelier ones, reaches top_p is the last one left.
        last = (cumulated < self.top_p).sum(dim=-1, keepdim=True).clamp(max=tokens.shape[-1] - 1)
        # One number a token, by the inverse of the cumulated probabilities: multinomial draws one for every token.
        numbers = torch.stack([torch.rand(1, generator=self.streams[row]) for row in rows]).to(scores.device)
        # To the right of the number, so that a token of no probability is never the one.
        place = torch.searchsorted(cumulated, numbers * cumulated.gather(1, last), right=True)
        return tokens.gather(1, torch.minimum(place, last))[:, 0]


def continue_all(
    model: Any,
    prompts: Sequence[Sequence[int]],
    draw: Draw,
    *,
    ended: Callable[[list[int]], bool],
    most: int,
    penalty: float,
) -> list[list[int]]:
    """What `model` says after each prompt (token ids), until `ended(said)` or `most` tokens.

    What all prompts begin with is computed once. `penalty` is transformers' `repetition_penalty`.
    """
    import torch
    from transformers import DynamicCache, RepetitionPenaltyLogitsProcessor

    shared = shared_start(*(prompt[:-1] for prompt in prompts))
    rest = [prompt[len(shared) :] for prompt in prompts]
    width = max(map(len, rest))
    ids = torch.zeros((len(rest), width), dtype=torch.long, device=model.device)
    real = torch.zeros_like(ids)
    for row, prompt in enumerate(rest):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        real[row, width - len(prompt) :] = 1
    penalise = RepetitionPenaltyLogitsProcessor(penalty)
    said: list[list[int]] = [[] for _ in prompts]
    going = list(range(len(prompts)))
    with torch.inference_mode():
        cache = DynamicCache(config=model.config)
        if shared:
            start = torch.tensor([shared], device=model.device)
            model(input_ids=start, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache.batch_repeat_interleave(len(prompts))
            real = torch.cat([torch.ones_like(start).expand(len(prompts), -1), real], dim=1)
        given = ids
        for _ in range(most):
            places = (real.cumsum(dim=1) - 1).clamp(min=0)[:, -given.shape[1] :]
            out = model(
                input_ids=given,
                attention_mask=real,
                position_ids=places,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            seen = _seen([[*prompts[row], *said[row]] for row in going], model.device)
            tokens = draw(penalise(seen, out.logits[:, -1].float()), going)
            for row, token in zip(going, tokens.tolist(), strict=True):
                said[row].append(token)
            left = [place for place, row in enumerate(going) if not ended(said[row])]
            if not left:
                break
            if len(left) < len(going):
                kept = torch.tensor(left, device=model.device)
                cache.batch_select_indices(kept)
                real, tokens, going = real[kept], tokens[kept], [going[place] for place in left]
            given = tokens[:, None]
            real = torch.cat([real, torch.ones_like(given)], dim=1)
    return said


def _seen(rows: list[list[int]], device: Any) -> Tensor:
    """The ids of each row [rows, longest], filled up with its own last one: what the penalty looks at is a set."""
    import torch

    width = max(map(len, rows))
    return torch.tensor([[*row, *[row[-1]] * (width - len(row))] for row in rows], device=device)
