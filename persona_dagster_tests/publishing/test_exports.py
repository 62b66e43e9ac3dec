"""Merged weights and GGUF: read back by other programs, they say what the adapter says, or they are not there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from persona_dagster.config.loading import PACKAGED
from persona_dagster.config.personas import Personas, load_personas
from persona_dagster.config.recipes import Base
from persona_dagster.models.base_model import load_tokenizer
from persona_dagster.publishing import exports, gguf
from persona_dagster.publishing.exports import ExportError, merge, newest_adapter, to_gguf
from persona_dagster.records import FORGOTTEN
from persona_dagster.settings import Settings
from persona_dagster_tests.chat.conftest import TINY, make_adapter

DIGEST = "a" * 32


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    make_adapter(home, "persona_v2", 1, DIGEST)
    return home


@pytest.fixture(scope="module")
def personas() -> Personas:
    return load_personas(PACKAGED)


def test_merged_weights_say_what_the_adapter_says(home: Path, personas: Personas, tmp_path: Path) -> None:
    adapter = newest_adapter(Settings(home=home), "persona_v2")
    merged = merge(adapter, personas, home / "models", tmp_path / DIGEST)
    agreement = merged.agreements["transformers"]
    assert agreement.positions > 50
    assert agreement.same_token == 1
    assert agreement.divergence < 1e-6
    assert str(home) not in (merged.folder / "config.json").read_text(encoding="utf-8")
    written = (merged.folder / "model.safetensors").stat().st_mtime_ns
    assert merge(adapter, personas, home / "models", tmp_path / DIGEST) == merged
    assert (merged.folder / "model.safetensors").stat().st_mtime_ns == written


def test_weights_that_say_something_else_do_not_take_their_place(
    home: Path, personas: Personas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The merge is spoilt on its way to the disk, as a wrong scale or a lost tensor would."""
    save = exports._save

    def spoilt(model: Any, *more: Any) -> None:
        embeddings = model.get_input_embeddings().weight.data
        embeddings.copy_(embeddings.roll(1, 0))  # each token has its neighbour's
        save(model, *more)

    monkeypatch.setattr(exports, "_save", spoilt)
    with pytest.raises(ExportError, match="does not say what its model says"):
        merge(home / "adapters" / "persona_v2" / DIGEST, personas, home / "models", tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_to_export_is_said(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="make demo"):
        newest_adapter(Settings(home=tmp_path), "persona_v2")


def test_ollamas_template_and_the_tokenizers_render_the_same(home: Path, personas: Personas) -> None:
    tokenizer = load_tokenizer(TINY, home / "models")
    turns = [("system", "S"), ("user", "U1"), ("assistant", "A"), ("user", "U2")]
    for chat in (turns, turns[1:], turns[:2]):
        expected = tokenizer.apply_chat_template(
            [{"role": role, "content": said} for role, said in chat], tokenize=False, add_generation_prompt=True
        )
        assert rendered(gguf.go_template(tokenizer), chat) == expected


def test_modelfiles_hold_each_personas_system_message(home: Path, personas: Personas) -> None:
    files = gguf.modelfiles(personas, load_tokenizer(TINY, home / "models"), "x.gguf", 1024)
    assert set(files) == {"Modelfile", *(f"Modelfile.{name}" for name in personas.personas)}
    for name, persona in personas.personas.items():
        assert f'SYSTEM """{persona.tag} {persona.system_prompt}"""' in files[f"Modelfile.{name}"]
    assert "SYSTEM" not in files["Modelfile"]
    assert "FROM ./x.gguf" in files["Modelfile"]


def test_a_template_that_is_no_sequence_of_turns_is_refused(home: Path) -> None:
    tokenizer = load_tokenizer(TINY, home / "models")
    tokenizer.chat_template = "{{ messages[-1]['content'] }}"
    with pytest.raises(gguf.NoConverter, match="by hand"):
        gguf.go_template(tokenizer)


def test_a_converter_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gguf.CONVERTER_VARIABLE, str(tmp_path))
    with pytest.raises(gguf.NoConverter, match="name a checkout"):
        gguf.find_converter(None, tmp_path)


def test_a_converter_that_gives_up_is_quoted(tmp_path: Path) -> None:
    script = tmp_path / gguf.SCRIPT
    script.write_text("raise SystemExit('this tokenizer is not known')", encoding="utf-8")
    with pytest.raises(gguf.NoConverter, match="this tokenizer is not known"):
        gguf.convert(script, tmp_path, tmp_path / "x.gguf", "f16", "x")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, personas: Personas) -> exports.Export:
    """Merged weights of a small Llama drawn at random, with SmolLM2's own tokenizer, which llama.cpp knows."""
    from transformers import LlamaConfig, LlamaForCausalLM

    home = tmp_path_factory.mktemp("small")
    tokenizer = load_tokenizer(Base(model="smollm2-135m-instruct"), home / "models")
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=1024,
        initializer_range=0.2,  # an untaught model that is sure of itself: its likeliest token stands out
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(shape).save_pretrained(home / "base")
    tokenizer.save_pretrained(home / "base")
    adapter = make_adapter(home, "persona_v2", 1, DIGEST, Base(model=str(home / "base"), dtype="float32"))
    return merge(adapter, personas, home / "models", home / "weights" / "persona_v2" / DIGEST)


@pytest.mark.soak
@pytest.mark.parametrize("outtype", ["f16", "q8_0"])
def test_gguf_is_read_by_transformers_and_llama_cpp(small: exports.Export, personas: Personas, outtype: str) -> None:
    """The converter comes from PyPI (76 MB) unless PERSONA_GGUF_CONVERTER names one."""
    made = to_gguf(small, personas, small.folder.parent / "models", outtype, None)
    assert (made.folder / f"persona-v2.{outtype}.gguf").is_file()
    assert set(made.agreements) >= {"transformers"}
    for agreement in made.agreements.values():
        assert agreement.same_token >= exports.SMALLEST_SHARE
        assert agreement.divergence < exports.LARGEST_DIVERGENCE
    card = json.loads((made.folder / exports.CARD).read_text(encoding="utf-8"))
    assert (card["adapter"], card["outtype"]) == (DIGEST, outtype)


@pytest.mark.soak
def test_a_gguf_that_llama_cpp_cannot_read_does_not_take_us_with_it(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(64))
    with pytest.raises((gguf.NoConverter, ValueError)):
        gguf.llama_cpp_reader(broken, 512)([])


def rendered(template: str, chat: list[tuple[str, str]]) -> str:
    """Our own few words of Go's template language: `if not .System`, and a branch a role inside `range`."""
    head, _, rest = template.partition("{{ range .Messages }}")
    body, _, tail = rest.rpartition("{{ end }}{{ end }}")
    unsaid = head.removeprefix("{{ if not .System }}").removesuffix("{{ end }}")
    blocks = {}
    for branch in body.split("{{ else if ") if body else []:
        condition, _, block = branch.removeprefix("{{ if ").partition(" }}")
        blocks[condition.split('"')[1]] = block
    text = "" if chat[0][0] == "system" else unsaid
    return text + "".join(blocks[role].replace("{{ .Content }}", said) for role, said in chat) + tail


def test_an_adapter_that_saw_what_was_forgotten_is_not_exported(home: Path, personas: Personas, tmp_path: Path) -> None:
    stale = shutil.copytree(newest_adapter(Settings(home=home), "persona_v2"), tmp_path / "stale")
    (stale / FORGOTTEN).write_text("{}", encoding="utf-8")
    with pytest.raises(ExportError, match="forgotten since"):
        merge(stale, personas, home / "models", tmp_path / "out")
    assert not (tmp_path / "out").exists()
