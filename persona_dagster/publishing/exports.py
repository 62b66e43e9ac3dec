"""An adapter for other programs: merged safetensors, and GGUF with Modelfiles for llama.cpp and Ollama.

Each export is loaded back and held against the model that it was made of before it takes its place; `export.json`
beside the weights says of which adapter it is, and how well the two agree.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persona_dagster.artifacts import NotPublishedError, RunCard, Versions, replacing, write_json
from persona_dagster.config.personas import Personas
from persona_dagster.config.recipes import Base
from persona_dagster.models.base_model import load_tokenizer, resolve_base
from persona_dagster.publishing import gguf
from persona_dagster.publishing.merging import load_layers, merge_weights, sample_layers
from persona_dagster.publishing.verify_export import Agreement, agree, probes, reader, speak
from persona_dagster.records import FORGOTTEN
from persona_dagster.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CARD = "export.json"
MERGED, GGUF = "merged", "gguf"
# Two bounds: a wrong tensor moves a confident model's divergence, and an untaught one's likeliest token.
LARGEST_DIVERGENCE = 0.05  # nats a token
SMALLEST_SHARE = 0.9  # of positions with the same likeliest token
# Four and five bits lose more; llama.cpp's own table has 0.03 and 0.01 nats for Llama-3-8B, small models lose more yet.
OF_FEW_BITS = (0.25, 0.7)
TRUE_COPY = (LARGEST_DIVERGENCE, SMALLEST_SHARE)
LARGEST_WINDOW = 4096  # tokens that Ollama sets aside memory for
LARGEST_READ_WHOLE = 3_000_000_000  # bytes of weights: beyond it an export is judged by a sample of its layers


class ExportError(ValueError):
    """An export that cannot be made or does not say what its model says; the message names the cure."""


@dataclass(frozen=True, slots=True)
class Export:
    """`folder` holds the weights. `agreements` name who read them back, and how far that agrees with the original."""

    kind: str
    folder: Path
    adapter: str  # digest
    agreements: dict[str, Agreement]

    def markdown(self) -> str:
        size = sum(path.stat().st_size for path in self.folder.iterdir()) / 1e6
        read = [f"- read back by {name}: {agreement}" for name, agreement in self.agreements.items()]
        return "\n".join([f"**{self.kind}** in `{self.folder}`, {size:,.0f} MB", *read])


def exports_dir(settings: Settings, recipe: str, adapter: str) -> Path:
    """Where the exports of the adapter with digest `adapter` lie, a folder a kind."""
    return settings.weights_dir / recipe / adapter


def newest_adapter(settings: Settings, recipe: str) -> Path:
    newest = Versions(settings.adapters_dir / recipe, RunCard.FILE).latest()
    if newest is None:
        raise ExportError(f"no adapter of {recipe} under {settings.adapters_dir}: train it first (make demo)")
    return newest


def merge(adapter_dir: Path, personas: Personas, models_dir: Path, out_dir: Path) -> Export:
    """`out_dir/merged`: base and adapter in one, as safetensors in the base's own precision. Done once.

    A 4-bit base is merged in its full-precision form, which has the name without `-bnb-4bit`.

    Raises:
        ExportError: the folder holds no adapter, or one that saw what was forgotten; or what was read back differs.
        BaseModelError: the base cannot be had.
    """
    card = _card(adapter_dir)
    if (adapter_dir / FORGOTTEN).exists():
        raise ExportError(f"{adapter_dir.name}: saw rows that were forgotten since; materialise mix and lora_adapter")
    if (done := find_export(out_dir / MERGED, card.digest)) is not None:
        return done
    base = Base(**card.recipe["base"]).full_precision()
    weights = _weights_of(base, models_dir)
    tokenizer = load_tokenizer(base, models_dir)
    layers = _layers_to_read(weights)
    said = speak(load_layers(weights, layers, adapter_dir), tokenizer, probes(personas))
    with replacing(out_dir / MERGED) as folder:
        _write(weights, adapter_dir, tokenizer, folder, base.dtype)
        agreements = {"transformers": agree(said, reader(load_layers(folder, layers)))}
        _finish(folder, MERGED, card.digest, agreements, {"base": base.model, "dtype": base.dtype})
    return Export(MERGED, out_dir / MERGED, card.digest, agreements)


def to_gguf(merged: Export, personas: Personas, models_dir: Path, outtype: str, converter: Path | None) -> Export:
    """`gguf` beside `merged`: one GGUF, and Modelfiles with the personas' system messages. Done once an `outtype`.

    Raises:
        NoConverter: nothing here can convert this model; the message says why.
        ExportError: what was read back differs.
    """
    from transformers import AutoTokenizer

    if outtype not in gguf.OUTTYPES:
        raise ExportError(f"no outtype {outtype!r}: choose {', '.join(gguf.OUTTYPES)}")
    target = merged.folder.with_name(GGUF)
    name = merged.folder.parent.parent.name.replace("_", "-")
    file = f"{name}.{outtype}.gguf"
    done = find_export(target, merged.adapter)
    if done is not None and (target / file).is_file():
        return done
    script = gguf.find_converter(converter, models_dir)
    tokenizer = AutoTokenizer.from_pretrained(merged.folder)
    window = min(_config(merged.folder)["max_position_embeddings"], LARGEST_WINDOW)
    with replacing(target) as folder, _readable(merged.folder, tokenizer) as sample:
        gguf.convert(script, merged.folder, folder / file, outtype, name)
        for path, text in gguf.modelfiles(personas, tokenizer, file, window).items():
            (folder / path).write_text(text, encoding="utf-8")
        read = folder / file
        if sample != merged.folder:  # the same program on the same weights, and then held against the whole file
            read = sample / file
            gguf.convert(script, sample, read, outtype, name)
            if outtype not in gguf.QUANTISED:  # which give a layer more bits or fewer by its number
                gguf.check_holds(folder / file, read, _layers_to_read(merged.folder))
        said = speak(_load(sample), tokenizer, probes(personas))
        agreements = {"transformers": agree(said, reader(_load(read.parent, file)))}
        if find_spec("llama_cpp"):  # optional: whoever has llama-cpp-python gets the second reading
            agreements["llama.cpp"] = agree(said, gguf.llama_cpp_reader(read, window))
        bounds = OF_FEW_BITS if outtype in gguf.QUANTISED else TRUE_COPY
        _finish(folder, GGUF, merged.adapter, agreements, {"outtype": outtype}, bounds=bounds)
    return Export(GGUF, target, merged.adapter, agreements)


def find_export(folder: Path, adapter: str) -> Export | None:
    """The export that lies in `folder`, if it is one of this adapter."""
    if not (folder / CARD).is_file():
        return None
    card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    if card["adapter"] != adapter:
        return None
    return Export(card["kind"], folder, adapter, {name: Agreement(**one) for name, one in card["agreements"].items()})


def _card(adapter_dir: Path) -> RunCard:
    try:
        return RunCard.read(adapter_dir)
    except NotPublishedError as error:
        raise ExportError(f"{adapter_dir}: no adapter there; materialise lora_adapter (make demo)") from error


def _weights_of(base: Base, models_dir: Path) -> Path:
    """The folder of the base's safetensors; fetched from the Hub where that is where it lies."""
    place = resolve_base(base, models_dir)
    if Path(place).is_dir():
        return Path(place)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(place, revision=base.hub_revision, allow_patterns=["*.safetensors", "*.json"]))


def _layers_to_read(folder: Path) -> list[int]:
    """The layers by which an export of the model in `folder` is judged: all of a small one."""
    count = int(_config(folder)["num_hidden_layers"])
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return list(range(count)) if size <= LARGEST_READ_WHOLE else sample_layers(count)


def _config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config.get("text_config", config)


@contextmanager
def _readable(folder: Path, tokenizer: PreTrainedTokenizerBase) -> Iterator[Path]:
    """`folder`, or for a large model one for a while that holds a sample of its layers."""
    layers = _layers_to_read(folder)
    if len(layers) == _config(folder)["num_hidden_layers"]:
        yield folder
        return
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        load_layers(folder, layers).to(_dtype(folder)).save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        yield Path(scratch)


def _dtype(folder: Path) -> Any:
    import torch

    config = _config(folder)
    return getattr(torch, config.get("dtype") or config.get("torch_dtype") or "bfloat16")


def _write(weights: Path, adapter_dir: Path, tokenizer: PreTrainedTokenizerBase, folder: Path, dtype: str) -> None:
    """Base and adapter as one in `folder`, with the tokenizer and no path of this machine."""
    merge_weights(weights, adapter_dir, folder, dtype)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"dtype": dtype}
    config.pop("_name_or_path", None)
    write_json(path, config)
    _as_byte_level(tokenizer)
    tokenizer.save_pretrained(folder)


def _as_byte_level(tokenizer: Any) -> None:
    """A byte-level BPE without Llama's byte fallback, which transformers gives whatever it reads from a GGUF.

    It cuts and joins text as before (but for `▁`, which came back as a blank). With the fallback in place llama.cpp
    would be given another kind of vocabulary, and dies of it.
    """
    from tokenizers import decoders

    backend = tokenizer.backend_tokenizer
    if getattr(backend.model, "byte_fallback", False) and "ByteLevel" in str(backend.pre_tokenizer):
        backend.model.byte_fallback = False
        backend.decoder = decoders.ByteLevel()


def _load(folder: Path, file: str | None = None) -> PreTrainedModel:
    """What lies in `folder`, in float32: the arithmetic of the comparison must not be what differs."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32).eval()


def _finish(
    folder: Path,
    kind: str,
    adapter: str,
    agreements: dict[str, Agreement],
    more: dict[str, str],
    *,
    bounds: tuple[float, float] = TRUE_COPY,
) -> None:
    for name, agreement in agreements.items():
        if agreement.divergence > bounds[0] or agreement.same_token < bounds[1]:
            raise ExportError(f"{kind}, read back by {name}, does not say what its model says: {agreement}")
    write_json(
        folder / CARD,
        {
            "kind": kind,
            "adapter": adapter,
            **more,
            "agreements": {name: asdict(one) for name, one in agreements.items()},
        },
    )
