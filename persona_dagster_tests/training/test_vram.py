"""The memory model against the published table it was fitted to, and refusals that name a cure which cures."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from persona_dagster.config.recipes import Base, Recipe, load_recipe
from persona_dagster.models.hardware import GIB, Card
from persona_dagster.training import preflight
from persona_dagster.training.job_spec import JobError
from persona_dagster.training.vram import (
    cures,
    estimate_vram,
    known_shape,
    largest_batch,
    largest_length,
    lora_weights,
)
from persona_dagster_tests.training.conftest import with_training

LLAMA = known_shape(Base(model="unsloth/llama-3-8b-Instruct-bnb-4bit"))


def recipe(name: str = "persona_v2", hardware: str = "gpu_12gb", **changes: Any) -> Recipe:
    return load_recipe(name, Path("nowhere"), "live", hardware).model_copy(update=changes)


def test_shape_of_llama_3_8b() -> None:
    assert LLAMA.linear_weights == pytest.approx(6.979e9, rel=1e-3)
    assert LLAMA.embedding_weights == pytest.approx(1.0507e9, rel=1e-3)


@pytest.mark.parametrize("tokens", [2048, 8192, 32768])
def test_unsloth_against_its_published_table(tokens: int) -> None:
    rank_32 = recipe(lora=recipe().lora.model_copy(update={"r": 32}))
    total = estimate_vram(rank_32, LLAMA, batch_size=1, length=tokens).total
    assert total == pytest.approx(7.37 + 0.217 * tokens / 1024, rel=0.03)


@pytest.mark.parametrize("tokens", [512, 932, 2551])  # what its table gives for cards of 12 and 16 GB
def test_transformers_and_peft_against_the_published_table(tokens: int) -> None:
    """Unsloth's table of the context that transformers with FlashAttention 2 reaches (Llama-3.1-8B, rank 32, batch 1):
    its rows had embeddings upcast to float32, which our backend avoids."""
    plain = with_training(recipe(backend="trl", lora=recipe().lora.model_copy(update={"r": 32})), chunked_loss=False)
    estimate = estimate_vram(plain, LLAMA, batch_size=1, length=tokens)
    upcast = estimate.embeddings
    assert estimate.total + upcast == pytest.approx(9.70 + 2.53 * tokens / 1024, rel=0.15)


# torchtune's README at 0031bfb (October 2024): Llama-3.1-8B, LoRA of rank 8 (its configs) in bfloat16, two packed rows
# of 2,048 tokens, its chunked loss, AdamW. Peaks of torch's allocator: the context is no part of them. Its third row,
# 30.3 GiB without checkpointing, stands on compiled layers, which keep less than ours: the plan has 40.5.
@pytest.mark.parametrize(("scheme", "published"), [("nf4", 7.4), ("none", 16.2)])
def test_transformers_and_peft_against_torchtunes_table(scheme: str, published: float) -> None:
    values = recipe(backend="trl").model_dump() | {"quantisation": {"scheme": scheme}}
    values["lora"] |= {"r": 8}
    values["training"] |= {"batch_size": 2, "max_length": 2048, "chunked_loss": True, "optimizer": "adamw_torch"}
    estimate = estimate_vram(Recipe.model_validate(values), LLAMA)
    assert estimate.total - estimate.context == pytest.approx(published, rel=0.15)


@pytest.mark.parametrize("name", ["persona_v1", "persona_v2", "capybara_qlora", "starter"])
@pytest.mark.parametrize("hardware", ["gpu_8gb", "gpu_12gb", "gpu_16gb", "gpu_24gb", "gpu_80gb"])
def test_packaged_recipes_fit_their_budget(name: str, hardware: str) -> None:
    loaded = recipe(name, hardware)
    assert loaded.vram_gib is not None
    assert cures(loaded, known_shape(loaded.base), loaded.vram_gib) == []


def test_any_config_json_has_a_shape(tmp_path: Path) -> None:
    """A folder that no entry names: heads of another width, norms of queries and keys."""
    text = {"model_type": "qwen3", "num_hidden_layers": 3, "hidden_size": 64, "intermediate_size": 96}
    text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 500}
    (tmp_path / "config.json").write_text(json.dumps(text | {"tie_word_embeddings": True}), encoding="utf-8")
    shape = known_shape(Base(model=str(tmp_path)))
    assert shape is not None and shape.linears["q_proj"] == (64, 128) and shape.linears["k_proj"] == (64, 64)
    assert shape.tied and shape.head_norms and shape.norms == 2


def test_ranks_hold_their_gradients_twice() -> None:
    """What torch says of DDP's `gradient_as_bucket_view`, which Accelerate leaves off."""
    two = with_training(recipe(), processes=2)
    more = estimate_vram(two, LLAMA).total - estimate_vram(recipe(), LLAMA).total
    assert more * GIB == pytest.approx(4 * lora_weights(two, LLAMA))


def test_what_fits_is_the_largest_that_does() -> None:
    batch = largest_batch(recipe(), LLAMA, 11.2)
    assert estimate_vram(recipe(), LLAMA, batch_size=batch).total <= 11.2
    assert estimate_vram(recipe(), LLAMA, batch_size=batch + 1).total > 11.2
    length = largest_length(recipe(), LLAMA, 9.0)
    assert estimate_vram(recipe(), LLAMA, length=length).total <= 9.0
    assert estimate_vram(recipe(), LLAMA, length=length + 64).total > 9.0


def test_every_cure_with_a_number_cures() -> None:
    wide = with_training(recipe(backend="trl"), batch_size=4, max_length=2048)
    named = cures(wide, LLAMA, 12.0)
    assert "training.chunked_loss: true" in named and "backend: unsloth" in named
    for cure in named:
        if cure.startswith("training.batch_size"):
            batch = int(cure.split()[1])
            assert estimate_vram(wide, LLAMA, batch_size=batch).total <= 12.0
        if cure.startswith("training.max_length"):
            assert estimate_vram(wide, LLAMA, length=int(cure.split()[1])).total <= 12.0


def test_a_card_that_is_too_small_is_refused_with_a_cure(monkeypatch: pytest.MonkeyPatch, make_job: Any) -> None:
    monkeypatch.setattr(preflight, "cards", lambda: [Card(0, "a card of 8 GB", 8.0, 7.8)])
    job = make_job().model_copy(update={"recipe": with_training(recipe(), batch_size=16)})
    with pytest.raises(JobError, match=r"needs about .* of 8\.0 GiB.*training\.batch_size"):
        preflight.check_machine(job)


def test_a_recipe_for_a_card_says_that_there_is_none(make_job: Any) -> None:
    if preflight.cards():
        pytest.skip("there is a card here")
    with pytest.raises(JobError, match="PERSONA_HARDWARE=cpu"):
        preflight.check_machine(make_job().model_copy(update={"recipe": recipe()}))


@pytest.fixture
def roomy_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights of 8B have room, however full this machine is."""
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: SimpleNamespace(free=100 * GIB))


@pytest.mark.usefixtures("roomy_disk")
def test_a_pytorch_that_cannot_use_the_card_is_named(monkeypatch: pytest.MonkeyPatch, make_job: Any) -> None:
    """The build of this machine, which knows no card; one whose driver is too old; one without code for this card."""
    import torch

    card = Card(0, "RTX 5090", 32.0, 31.0, capability=(12, 0))
    monkeypatch.setattr(preflight, "cards", lambda: [card])
    job = make_job().model_copy(update={"recipe": recipe("persona_v2", "gpu_24gb")})
    if torch.version.cuda is None:
        with pytest.raises(JobError, match=r"built for the CPU alone, cannot use RTX 5090 \(sm_120\): install"):
            preflight.check_machine(job)
    monkeypatch.setattr(torch.version, "cuda", "12.1")
    for available, archs in ((False, ["sm_120"]), (True, ["sm_80", "sm_90", "compute_90"])):
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda archs=archs: archs)
        with pytest.raises(JobError, match=r"built for CUDA 12\.1, cannot use .*newer driver"):
            preflight.check_machine(job)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_90", "sm_120"])
    preflight.check_machine(job)


@pytest.mark.usefixtures("roomy_disk")
def test_a_gated_base_wants_a_token(monkeypatch: pytest.MonkeyPatch, make_job: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(preflight, "cards", lambda: [Card(0, "a card of 24 GB", 24.0, 23.0)])
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    job = make_job().model_copy(update={"recipe": recipe("capybara_qlora", "gpu_24gb")})
    with pytest.raises(JobError, match=r"gated.*HF_TOKEN"):
        preflight.check_machine(job)
    monkeypatch.setenv("HF_TOKEN", "a token")
    monkeypatch.setattr(preflight, "_check_cuda", lambda *_: None)
    preflight.check_machine(job)


def test_a_full_disk_is_seen_before(monkeypatch: pytest.MonkeyPatch, make_job: Any) -> None:
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: SimpleNamespace(free=0.0001 * GIB))
    with pytest.raises(JobError, match="make room"):
        preflight.check_machine(make_job())


def test_a_length_beyond_the_model_is_refused(make_job: Any) -> None:
    with pytest.raises(JobError, match="lower it"):
        preflight.check_machine(make_job(max_length=4096))


def test_a_tracker_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, make_job: Any) -> None:
    monkeypatch.setattr(preflight, "find_spec", lambda name: None)
    with pytest.raises(JobError, match=r"names mlflow, which is not installed: pip install mlflow"):
        preflight.check_machine(make_job(report_to=["mlflow"]))


def test_packs_are_refused_where_they_would_run_together() -> None:
    with pytest.raises(ValueError, match="want backend trl"):
        with_training(recipe(), packing=True)
    starter = recipe("starter", "cpu")
    assert starter.training.packing and starter.lora.rslora and starter.base.entry.licence.id == "apache-2.0"
