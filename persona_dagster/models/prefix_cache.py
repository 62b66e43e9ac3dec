"""The part of a prompt that all questions to a voice share, computed once: the keys and values of its system message.

A prompt is always computed in the same two pieces, remembered or not, so that remembering changes no answer.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Any

MOST = 16  # prefixes kept: about 5 MB each for 135 M parameters, 10 MB for 8 B


class PrefixCache:
    """Of one base model; `forget()` when it goes."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, tuple[list[int], Any]] = OrderedDict()

    def cache(self, model: Any, voice: Hashable, shared: Sequence[int]) -> Any:
        """A cache of `model` that holds `shared`, for one generation to go on from; `voice` names what spoke them.

        `model` must be set to speak as `voice`. None where there is nothing to share.
        """
        if not shared:
            return None
        ids, cache = self._kept.get(voice, (None, None))
        if ids != list(shared):
            cache = self._compute(model, list(shared))
            self._kept[voice] = (list(shared), cache)
        self._kept.move_to_end(voice)
        while len(self._kept) > MOST:
            self._kept.popitem(last=False)
        return copy.deepcopy(cache)  # a generation writes into its own

    def forget(self) -> None:
        self._kept.clear()

    @staticmethod
    def _compute(model: Any, ids: list[int]) -> Any:
        import torch

        given = torch.tensor([ids], device=model.device)
        with torch.inference_mode():
            return model(input_ids=given, use_cache=True, logits_to_keep=1).past_key_values


def shared_start(*prompts: Sequence[int]) -> list[int]:
    """The ids with which all `prompts` begin."""
    shared: list[int] = []
    for column in zip(*prompts, strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return shared
