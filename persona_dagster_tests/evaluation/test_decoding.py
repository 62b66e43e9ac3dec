"""Tokens are drawn as their probabilities say, and by the prompt's own numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from persona_dagster.config.base_models import Base
from persona_dagster.evaluation.decoding import Draw, continue_all
from persona_dagster.models.base_model import load_base
from persona_dagster.models.cpu_matmul import weight_first

LOGITS = torch.tensor([[2.0, 1.0, -1.0, 0.5, -torch.inf, 3.0]])
ROWS = 30_000


def shares(temperature: float, top_p: float) -> torch.Tensor:
    scores = LOGITS.expand(ROWS, -1)
    drawn = Draw(range(ROWS), temperature, top_p)(scores, range(ROWS))
    return torch.bincount(drawn, minlength=LOGITS.shape[1]) / ROWS


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
    together, alone = Draw([7, 8, 9], 1.0, 1.0), Draw([8], 1.0, 1.0)
    for left in [[0, 1, 2]] * 10 + [[1, 2]] * 10:
        assert together(scores[left], left)[left.index(1)] == alone(scores[1:2], [0])[0]


def test_greedy_answers_are_those_of_transformers(models_dir: Path) -> None:
    model, tokenizer = load_base(Base(model="tiny:llama", dtype="float32"), models_dir)
    texts = ["問：你好嗎", "問：你好嗎？今天天氣怎麼樣，要不要出門走走", "問：你好", "問：你好嗎？嗯"]
    prompts = [tokenizer(text)["input_ids"] for text in texts]

    def ended(said: list[int]) -> bool:
        return said[-1] % 7 == 0  # rows leave the batch at different times, and the others go on as before

    found = continue_all(model, prompts, Draw([0] * 4, 0.0, 1.0), ended=ended, most=24, penalty=1.3)
    for prompt, said in zip(prompts, found, strict=True):
        whole = model.generate(
            torch.tensor([prompt]), max_new_tokens=24, do_sample=False, repetition_penalty=1.3, eos_token_id=None
        )[0, len(prompt) :].tolist()
        assert said == whole[: next((n for n, token in enumerate(whole, 1) if token % 7 == 0), 24)]
    assert len({len(said) for said in found}) > 1


def test_few_rows_are_multiplied_as_torch_does() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(32, 20_000, bias=False))
    given = torch.randn(5, 2, 32)
    with torch.inference_mode():
        wanted = model(given)
        weight_first(model)
        assert torch.allclose(model(given), wanted, atol=1e-5)
