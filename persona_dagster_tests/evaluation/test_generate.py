"""The generation program on the tiny model: batches, resuming, base beside adapter, and likelihoods."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from persona_dagster.config.personas import Personas
from persona_dagster.config.recipes import Recipe, load_recipe
from persona_dagster.evaluation import generate as program
from persona_dagster.evaluation.job_spec import GenerateJob
from persona_dagster.evaluation.loss import ScoredAnswer, choices, likelihoods
from persona_dagster.evaluation.prompts import read_rows
from persona_dagster.models.base_model import for_asking, load_base
from persona_dagster.pipes_reporting import Reporter
from persona_dagster.records import GENERATION_SCHEMA

pytestmark = pytest.mark.train


def make_adapter(recipe: Recipe, models_dir: Path, folder: Path, noise: float) -> Path:
    """An adapter on the tiny model: `noise` 0 is as PEFT makes it, untrained, and changes nothing."""
    import torch
    from peft import LoraConfig, get_peft_model

    model, _ = load_base(recipe.base, models_dir)
    torch.manual_seed(0)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(0, noise) if noise else weight.data.zero_()
    adapted.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    recipe = load_recipe("persona_v2", tmp_path_factory.getbasetemp(), "tiny", "cpu")
    few = {"max_rows": 6, "max_probes": 6, "batch_size": 4, "max_new_tokens": 6, "temperature": 0.0}
    spec = recipe.evaluation.model_copy(update=few)
    return recipe.model_copy(update={"evaluation": spec})


@pytest.fixture(scope="module")
def job(
    tiny: Recipe, personas: Personas, mix: Path, models_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> GenerateJob:
    root = tmp_path_factory.mktemp("generate")
    adapter = make_adapter(tiny, models_dir, root / "adapter", noise=0.5)
    return GenerateJob(
        recipe=tiny, personas=personas, mix_dir=mix, models_dir=models_dir, adapter_dir=adapter, out_dir=root / "out"
    )


class Interrupting(Reporter):
    """Ends the run after some lines, as a kill would between two batches."""

    def __init__(self, after: int) -> None:
        super().__init__(None, quiet=True)
        self.left = after

    def line(self, text: str) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


def answers(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "generations.parquet")


def test_both_models_answer_everything_once(job: GenerateJob) -> None:
    folder = program.generate(job, Reporter(None, quiet=True))
    frame = answers(folder)
    assert frame.schema == GENERATION_SCHEMA
    assert frame.select("model", "suite", "prompt_id").is_duplicated().sum() == 0
    assert frame["new_tokens"].max() <= 6
    assert set(frame["finish"]) <= {"stop", "length"}
    assert (job.out_dir / "latest").read_text(encoding="utf-8").strip() == folder.name
    scored = pl.read_parquet(folder / "likelihoods.parquet").filter(pl.col("suite") == "test")
    losses = scored.pivot("model", index="key", values="nats")
    assert ((losses["base"] - losses["adapter"]).abs() > 1e-3).all()  # the adapter was on for one of them
    assert (
        json.loads((folder / "settings.json").read_text(encoding="utf-8"))["sampling"]["seed"]
        == job.recipe.evaluation.seed
    )


def test_nothing_changed_asks_nothing(job: GenerateJob, monkeypatch: pytest.MonkeyPatch) -> None:
    first = program.generate(job, Reporter(None, quiet=True))
    monkeypatch.setattr(program, "load_models", lambda _: pytest.fail("the model was loaded"))
    assert program.generate(job, Reporter(None, quiet=True)) == first


def test_every_input_that_counts_changes_the_name(job: GenerateJob, tmp_path: Path, models_dir: Path) -> None:
    named = program.generation_digest(job)
    spec = job.recipe.evaluation

    def renamed(**changes: Any) -> str:
        changed = job.recipe.model_copy(update={"evaluation": spec.model_copy(update=changes)})
        return program.generation_digest(job.model_copy(update={"recipe": changed}))

    assert renamed(seed=99) != named
    assert renamed(temperature=0.7) != named
    assert renamed(encoder="roberta-large") == named  # read later, by evaluate
    other = make_adapter(job.recipe, models_dir, tmp_path / "other", noise=0.1)
    assert program.generation_digest(job.model_copy(update={"adapter_dir": other})) != named


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_an_interrupted_run_goes_on_to_the_same_answers(job: GenerateJob, tmp_path: Path, temperature: float) -> None:
    spec = job.recipe.evaluation.model_copy(update={"temperature": temperature})
    recipe = job.recipe.model_copy(update={"evaluation": spec})
    whole = program.generate(
        job.model_copy(update={"recipe": recipe, "out_dir": tmp_path / "a"}), Reporter(None, quiet=True)
    )
    broken = job.model_copy(update={"recipe": recipe, "out_dir": tmp_path / "b"})
    with pytest.raises(KeyboardInterrupt):
        program.generate(broken, Interrupting(after=4))
    (partial,) = (tmp_path / "b").glob(".partial-*")
    saved = partial.read_bytes()
    assert saved.count(b"\n") >= 8
    partial.write_bytes(saved + b'[["adapter", "test"')  # and a line that a kill cut short
    resumed = program.generate(broken, Reporter(None, quiet=True))
    assert answers(resumed).equals(answers(whole))
    assert not list((tmp_path / "b").glob(".partial-*"))


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_batch_answers_as_each_prompt_alone(job: GenerateJob, temperature: float) -> None:
    model, tokenizer, dtype = program.load_models(job)
    assert dtype == "float32"
    texts = ["你好", "什麼是 Transformer？" * 5, "我好像失戀了，怎麼辦"]
    spec = job.recipe.evaluation.model_copy(update={"temperature": temperature})
    recipe = job.recipe.model_copy(update={"evaluation": spec})
    together = program._answer(model, tokenizer, texts, [1, 2, 3], recipe)
    alone = [program._answer(model, tokenizer, [text], [seed], recipe)[0] for seed, text in enumerate(texts, 1)]
    assert together == alone


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_an_untrained_adapter_is_its_base(
    job: GenerateJob, tmp_path: Path, models_dir: Path, temperature: float
) -> None:
    adapter = make_adapter(job.recipe, models_dir, tmp_path / "untrained", noise=0)
    spec = job.recipe.evaluation.model_copy(update={"temperature": temperature})
    changed = {"recipe": job.recipe.model_copy(update={"evaluation": spec})}
    folder = program.generate(
        job.model_copy(update={**changed, "adapter_dir": adapter, "out_dir": tmp_path / "out"}),
        Reporter(None, quiet=True),
    )
    both = answers(folder).filter(pl.col("suite") != "reference_train").filter(pl.col("model") != "fewshot")
    wide = both.pivot("model", index=["suite", "prompt_id"], values="answer")
    assert (wide["base"] == wide["adapter"]).all()
    scored = pl.read_parquet(folder / "likelihoods.parquet").filter(pl.col("suite") == "test")
    losses = scored.pivot("model", index="key", values="nats")
    assert (losses["base"] - losses["adapter"]).abs().max() < 1e-4


def test_likelihoods_are_the_models_own_loss(job: GenerateJob, mix: Path) -> None:
    import torch

    from persona_dagster.models.chat_format import encode

    model, tokenizer, _ = program.load_models(job)
    tokenizer.padding_side = "right"
    rows = read_rows(mix / "test.jsonl")[:7]
    asked = [ScoredAnswer(row.row_id, "test", row.persona, row.messages) for row in rows]
    frame = likelihoods(model, tokenizer, asked, max_length=512, name="adapter")
    for row in rows:
        one = encode(row.messages, tokenizer, 512)
        assert one is not None
        with torch.inference_mode():
            loss = model(input_ids=torch.tensor([one.input_ids]), labels=torch.tensor([one.labels])).loss
        found = frame.row(by_predicate=pl.col("key") == row.row_id, named=True)
        assert found["nats"] / found["tokens"] == pytest.approx(float(loss), abs=1e-4)
        assert found["tokens"] == sum(label != -100 for label in one.labels)
        assert found["chars"] == len(row.answer)


def test_layers_that_base_and_adapter_share_are_computed_once_and_change_no_score(
    job: GenerateJob, mix: Path, models_dir: Path, tmp_path: Path
) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    base, _ = load_base(job.recipe.base, models_dir)
    config = LoraConfig(r=4, target_modules=["q_proj"], layers_to_transform=[1], init_lora_weights=False)
    get_peft_model(base, config).save_pretrained(tmp_path)
    model, tokenizer, _ = program.load_models(job.model_copy(update={"adapter_dir": tmp_path}))
    train, test = read_rows(mix / "train.jsonl"), read_rows(mix / "test.jsonl")
    reporter = Reporter(None, quiet=True)

    def scores(last_layers: int | None) -> pl.DataFrame:
        lora = job.recipe.lora.model_copy(update={"last_layers": last_layers})
        recipe = job.recipe.model_copy(update={"lora": lora})
        frame = program.score_all(model, tokenizer, train, test, recipe=recipe, reporter=reporter)
        return frame.sort("model", "suite", "key", "option")

    shared, apart = scores(1), scores(None)
    assert shared.drop("nats").equals(apart.drop("nats"))
    assert (shared["nats"] - apart["nats"]).abs().max() < 1e-3
    by_model = shared.filter(pl.col("suite") == "test").pivot("model", index="key", values="nats")
    assert (by_model["base"] - by_model["adapter"]).abs().min() > 1e-3, "the adapter is on for one of them"


def test_choices_take_the_likeliest_sentence() -> None:
    frame = pl.DataFrame(
        {
            "key": ["a", "a", "b", "b"],
            "suite": ["knowledge"] * 4,
            "model": ["base"] * 4,
            "option": [0, 1, 0, 1],
            "nats": [3.0, 4.0, 9.0, 2.0],  # by tokens, the wrong one of `a` would win
            "tokens": [2, 4, 3, 1],
        }
    )
    assert choices(frame).rows() == [("a", "base", True), ("b", "base", False)]


def test_a_missing_adapter_says_what_to_do(job: GenerateJob, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="train the recipe first"):
        program.generate(job.model_copy(update={"adapter_dir": tmp_path}), Reporter(None, quiet=True))


def test_grouped_attention_answers_as_eager_does() -> None:
    """Four query heads on two key heads, prompts padded on the left: the CPU kernel takes the groups as they are."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=50, num_key_value_heads=2, attn_implementation="eager", **shape)
    model = LlamaForCausalLM(config).eval()
    ids = torch.randint(3, 50, (3, 9))
    mask = torch.ones_like(ids)
    mask[0, :4] = mask[1, :1] = 0

    def last_logits() -> torch.Tensor:
        """Of a step after a remembered prompt, as generation takes it."""
        with torch.no_grad():
            cache = model(input_ids=ids[:, :-1], attention_mask=mask[:, :-1], use_cache=True).past_key_values
            return model(input_ids=ids[:, -1:], attention_mask=mask, past_key_values=cache).logits

    expected = last_logits()
    for_asking(model)
    assert model.config._attn_implementation == "sdpa_grouped"
    assert torch.allclose(last_logits(), expected, atol=1e-5)
