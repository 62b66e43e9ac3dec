"""Tokens are drawn as their probabilities say, and by the prompt's own numbers."""

from __future__ import annotations

import pytest
import torch

from persona_dagster.evaluation.sampling import Draw

LOGITS = torch.tensor([[2.0, 1.0, -1.0, 0.5, -torch.inf, 3.0]])
ROWS = 30_000


def shares(temperature: float, top_p: float) -> torch.Tensor:
    scores = LOGITS.expand(ROWS, -1)
    drawn = Draw(range(ROWS), temperature, top_p)(torch.zeros(ROWS, 1, dtype=torch.long), scores)
    assert (torch.isfinite(drawn).sum(dim=1) == 1).all()
    return torch.bincount(drawn.argmax(dim=1), minlength=LOGITS.shape[1]) / ROWS


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_as_often_as_the_softmax_says(temperature: float) -> None:
    wanted = torch.softmax(LOGITS[0] / temperature, dim=0)
    # Four standard deviations of a share of 30,000 draws.
    assert (shares(temperature, 1.0) - wanted).abs().max() < 4 * 0.5 / ROWS**0.5
    assert shares(temperature, 1.0)[4] == 0


def test_top_p_leaves_the_likeliest_as_transformers_does() -> None:
    found = shares(1.0, 0.8)  # 0.62 and 0.23 make up 0.8
    assert found[[1, 2, 3, 4]].sum() == 0
    assert found[5] == pytest.approx(float(torch.softmax(LOGITS[0, [5, 0]], dim=0)[0]), abs=0.012)


def test_a_row_draws_the_same_alone_and_among_others() -> None:
    scores = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    ids = torch.zeros(3, 1, dtype=torch.long)
    together, alone = Draw([7, 8, 9], 1.0, 1.0), Draw([8], 1.0, 1.0)
    for _ in range(20):
        assert together(ids, scores)[1].equal(alone(ids[1:2], scores[1:2])[0])
