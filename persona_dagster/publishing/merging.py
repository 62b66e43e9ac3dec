"""Base and adapter as one, some rows at a time on the CPU: no card, and no more memory than the largest shard takes.

An 8B model is 16 GB; loaded whole it fits neither the card that trained it in 4 bits nor most laptops.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_WEIGHTS = "*.safetensors"
_PREFIX = "base_model.model."
# Weights that are merged at once. Whole tensors, in float32 and in half precision by turns, leave the heap in pieces: a
# shard of 12 took the memory of two.
_PIECE = 1 << 18
_NAMES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}  # of dtypes, in safetensors' words


class MergeError(ValueError):
    """An adapter that does not belong to this base, or a base that is not whole."""


@dataclass(frozen=True, slots=True)
class Deltas:
    """What an adapter adds to the base: `scaling · B @ A` by the name of the base's weight."""

    pairs: dict[str, tuple[Tensor, Tensor]]  # (A [r, in], B [out, r]), float32
    scaling: float

    @classmethod
    def of(cls, adapter_dir: Path) -> Deltas:
        from safetensors.torch import load_file

        config = json.loads((adapter_dir / "adapter_config.json").read_text(encoding="utf-8"))
        if config.get("rank_pattern") or config.get("alpha_pattern") or config.get("modules_to_save"):
            raise MergeError(f"{adapter_dir}: ranks by module, or whole modules in the adapter: merge it with PEFT")
        rank = config["r"]
        weights = load_file(adapter_dir / "adapter_model.safetensors")
        downs = {name: weight for name, weight in weights.items() if ".lora_A." in name}
        pairs = {
            name.removeprefix(_PREFIX).replace(".lora_A.", "."): (
                weight.float(),
                weights[name.replace(".lora_A.", ".lora_B.")].float(),
            )
            for name, weight in downs.items()
        }
        return cls(pairs, config["lora_alpha"] / (rank**0.5 if config.get("use_rslora") else rank))

    def apply(self, name: str, rows: Tensor, start: int) -> Tensor:
        """The `rows` of a weight from `start` on, merged, in float32; as they are where the adapter has none for it."""
        if name not in self.pairs:
            return rows
        down, up = self.pairs[name]
        return rows.float().addmm_(up[start : start + len(rows)], down, alpha=self.scaling)


def merge_weights(base_dir: Path, adapter_dir: Path, out_dir: Path, dtype: str) -> None:
    """Writes base and adapter as one into `out_dir`: the base's shards under their names, in `dtype`.

    Raises:
        MergeError: no safetensors in `base_dir`, weights in 4 bits, or maps of the adapter that it does not have.
    """
    shards = sorted(base_dir.glob(_WEIGHTS))
    if not shards:
        raise MergeError(f"{base_dir}: holds no safetensors to merge with")
    deltas = Deltas.of(adapter_dir)
    waiting = set(deltas.pairs)
    for shard in shards:
        waiting -= _merge_shard(shard, deltas, out_dir / shard.name, dtype)
    if waiting:
        named = ", ".join(sorted(waiting)[:3])
        raise MergeError(f"{adapter_dir.name}: {len(waiting)} of its maps are not in {base_dir} ({named}, …)")
    for path in base_dir.glob("*.json"):
        if "tokenizer" not in path.name:
            shutil.copy2(path, out_dir / path.name)


def _merge_shard(shard: Path, deltas: Deltas, target: Path, dtype: str) -> set[str]:
    """Writes one shard; returns the maps of the adapter that were in it."""
    import torch
    from safetensors import safe_open

    wanted = getattr(torch, dtype)
    with safe_open(shard, "pt") as opened:
        names = sorted(opened.keys())
        shapes = {name: list(opened.get_slice(name).get_shape()) for name in names}
        kinds = {name: opened.get_slice(name).get_dtype() for name in names}
        if odd := next((name for name, kind in kinds.items() if kind not in _NAMES.values()), None):
            raise MergeError(f"{shard}: {odd} is {kinds[odd]}; merge into the full-precision form of the base")
        _check_shapes(deltas, shapes)
        with target.open("wb") as file:
            file.write(_header(shapes, dtype))
            for name in names:
                for start, rows in _pieces(opened, name, shapes[name]):
                    merged = deltas.apply(name, rows, start).to(wanted).contiguous()
                    file.write(merged.view(torch.uint8).numpy().data)
    return set(names) & set(deltas.pairs)


def _pieces(opened: Any, name: str, shape: list[int]) -> Iterator[tuple[int, Tensor]]:
    """A tensor by some rows at a time, with the number of the first."""
    if not shape:
        yield 0, opened.get_tensor(name).reshape(1)
        return
    rows = max(_PIECE // max(math.prod(shape[1:]), 1), 1)
    for start in range(0, shape[0], rows):
        yield start, opened.get_slice(name)[start : start + rows]


def _check_shapes(deltas: Deltas, shapes: dict[str, list[int]]) -> None:
    for name in deltas.pairs.keys() & shapes.keys():
        down, up = deltas.pairs[name]
        if [up.shape[0], down.shape[1]] != shapes[name]:
            raise MergeError(
                f"{name}: the adapter was made for {[up.shape[0], down.shape[1]]}, the base has {shapes[name]}"
            )


def _header(shapes: dict[str, list[int]], dtype: str) -> bytes:
    """safetensors' own: its length in 8 bytes, then JSON padded to 8, with where each tensor lies after it."""
    import torch

    size = getattr(torch, dtype).itemsize
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, shape in shapes.items():
        end = start + torch.Size(shape).numel() * size
        entries[name] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def sample_layers(count: int) -> list[int]:
    """The first, the middle and the last of `count` layers: what a read-back of a large model looks at."""
    return sorted({0, count // 2, count - 1})


def load_layers(folder: Path, layers: list[int], adapter_dir: Path | None = None) -> Any:
    """The model in `folder` with `layers` alone, in float32 (an 8B with three: 7 GB); with an adapter, under PEFT.

    What it says makes no sense, and is the same for a base under its adapter and for the two merged.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    config.num_hidden_layers = len(layers)
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[layer] for layer in layers]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    shards = sorted(folder.glob(_WEIGHTS))
    weights = {place: weight.float() for shard in shards for place, weight in _of_layers(shard, layers)}
    model.load_state_dict(weights, strict=False, assign=True)
    model.tie_weights()
    _fill_buffers(model, config)
    if missing := [name for name, weight in model.named_parameters() if weight.is_meta]:
        raise MergeError(f"{folder}: lacks {missing[0]}")
    if adapter_dir is None:
        return model.eval()
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

    lora = LoraConfig.from_pretrained(str(adapter_dir))
    lora.layers_to_transform, lora.inference_mode = None, False  # the others keep a B of zeros
    tuned = get_peft_model(model, lora)
    set_peft_model_state_dict(tuned, dict(_of_layers(adapter_dir / "adapter_model.safetensors", layers)))
    return tuned.eval()


def _of_layers(shard: Path, layers: list[int]) -> Iterator[tuple[str, Tensor]]:
    """What of a file belongs to `layers` or to none, by its name in a model that has them alone."""
    from safetensors import safe_open

    with safe_open(shard, "pt") as opened:
        for name in opened.keys():  # noqa: SIM118  (no mapping)
            head, found, rest = name.partition(".layers.")
            number, _, tail = rest.partition(".")
            if not found:
                yield name, opened.get_tensor(name)
            elif int(number) in layers:
                yield f"{head}.layers.{layers.index(int(number))}.{tail}", opened.get_tensor(name)


def _fill_buffers(model: Any, config: Any) -> None:
    """Rotary frequencies and the like, which no file holds: made anew, as a narrow model of these layers has them."""
    import torch
    from transformers import AutoModelForCausalLM

    small = type(config).from_dict({**config.to_dict(), "vocab_size": 8, "intermediate_size": 8})
    made = dict(AutoModelForCausalLM.from_config(small, dtype=torch.float32).named_buffers())
    for name, buffer in list(model.named_buffers()):
        if buffer.is_meta:
            owner, _, own = name.rpartition(".")
            model.get_submodule(owner).register_buffer(own, made[name], persistent=False)
