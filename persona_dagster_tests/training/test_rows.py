"""The order of rows: everything once, copies apart, the same everywhere; and bad mixes told apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona_dagster.config.recipes import Base
from persona_dagster.models.base_model import BaseModelError, check_chat_template, load_tokenizer
from persona_dagster.training.job_spec import JobError, TrainJob
from persona_dagster.training.rows import epoch_order, pack, read_rows
from persona_dagster.training.train import choose

TINY = Base(model="tiny:llama")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=60))
def test_packs_hold_every_row_once_and_leave_little_room(lengths: list[int]) -> None:
    packs = pack(lengths, 50)
    assert sorted(index for one in packs for index in one) == list(range(len(lengths)))
    sizes = sorted(sum(lengths[index] for index in one) for one in packs)
    assert sizes[-1] <= 50
    assert len(sizes) == 1 or sizes[0] + sizes[1] > 50, "two that fit in one are one"


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=40), st.integers(1, 9), st.integers(0, 5))
def test_every_row_once_and_no_two_copies_in_a_step(copies: list[int], window: int, epoch: int) -> None:
    pairs = [f"pair{number}" for number, count in enumerate(copies) for _ in range(count)]
    order = epoch_order(pairs, window, seed=1, epoch=epoch)
    assert sorted(order) == list(range(len(pairs)))
    assert order == epoch_order(pairs, window, seed=1, epoch=epoch)
    steps = [[pairs[index] for index in order[start : start + window]] for start in range(0, len(order), window)]
    if max(copies) <= len(pairs) // window:  # else there are fewer whole steps than copies
        assert all(max(Counter(step).values()) == 1 for step in steps)


def test_epochs_and_seeds_differ() -> None:
    pairs = [str(number) for number in range(50)]
    orders = {tuple(epoch_order(pairs, 8, seed, epoch)) for seed in (1, 2) for epoch in (0, 1, 2)}
    assert len(orders) == 6


def test_rows_are_read_with_loss_on_answers_alone(mix_dir: Path, models_dir: Path) -> None:
    tokenizer = load_tokenizer(TINY, models_dir)
    rows = read_rows(mix_dir, "train", tokenizer, 512)
    assert len(rows.rows) == 12 and not rows.dropped and not rows.cut
    for row in rows.rows:
        answer = tokenizer.decode([label for label in row.labels if label != -100])
        assert answer.endswith("<|im_end|>") and "<|im_start|>" not in answer
        assert row.pair_id + "-0" == row.row_id


def test_what_does_not_fit_is_named(mix_dir: Path, models_dir: Path) -> None:
    tokenizer = load_tokenizer(TINY, models_dir)
    rows = read_rows(mix_dir, "train", tokenizer, 60)
    assert max(rows.lengths) <= 60 and rows.cut
    with pytest.raises(JobError, match="none of 12 rows"):
        read_rows(mix_dir, "train", tokenizer, 16)


@pytest.mark.parametrize("line", ["not json", "{}", '{"row_id": "a-0", "persona": "p", "messages": 3}'])
def test_a_line_that_is_no_row_is_named_by_number(line: str, mix_dir: Path, models_dir: Path) -> None:
    path = mix_dir / "train.jsonl"
    path.write_text(path.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    with pytest.raises(JobError, match="line 13"):
        read_rows(mix_dir, "train", load_tokenizer(TINY, models_dir), 512)


def test_an_empty_mix_is_an_error(mix_dir: Path, models_dir: Path) -> None:
    (mix_dir / "train.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(JobError, match="empty"):
        read_rows(mix_dir, "train", load_tokenizer(TINY, models_dir), 512)
    (mix_dir / "train.jsonl").unlink()
    with pytest.raises(JobError, match="materialise the mix"):
        read_rows(mix_dir, "train", load_tokenizer(TINY, models_dir), 512)


def test_evaluation_rows_take_turns_over_personas(mix_dir: Path, models_dir: Path) -> None:
    rows = read_rows(mix_dir, "train", load_tokenizer(TINY, models_dir), 512).rows
    chosen = choose(rows, 6)
    assert Counter(row.persona for row in chosen) == {"assistant": 2, "mentor": 2, "mouthpiece": 2}
    assert chosen == choose(list(reversed(rows)), 6) and len(choose(rows, 99)) == 12


def test_a_job_survives_its_file(make_job: Callable[..., TrainJob], tmp_path: Path) -> None:
    job = make_job(epochs=2)
    assert TrainJob.load(job.save(tmp_path / "jobs" / "job.json")) == job


def test_a_base_without_a_chat_template_is_told_before_anything_is_written(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(TINY, tmp_path)
    tokenizer.save_pretrained(tmp_path / "instruct")
    check_chat_template(Base(model=str(tmp_path / "instruct")))
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "base")
    with pytest.raises(BaseModelError, match="instruct version"):
        check_chat_template(Base(model=str(tmp_path / "base")))
    check_chat_template(Base(model="some/model-of-the-hub"))  # not looked at before its tokenizer is loaded
