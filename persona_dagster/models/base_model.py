"""Base models as their entries describe them (config/base_models.py), loaded for training, generation, chat and export.

What a package brings or what is drawn at random is made once under `models_dir`, a cache that is safe to delete.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persona_dagster.config.base_models import Base, BaseEntry, Folder, Hub, Made, Packages
from persona_dagster.config.recipes import Quantisation
from persona_dagster.digest import file_digest, text_digest
from persona_dagster.models.cpu_matmul import weight_first
from persona_dagster.models.hardware import cards, precision
from persona_dagster.models.packaged import MADE, BaseModelError, from_gguf, from_packages, made_once

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Puts a system message into the first question, for models that know no such role.
_FOLD_SYSTEM = (
    "{%- if messages and messages[0]['role'] == 'system' %}"
    "{%- set first = {'role': 'user', 'content': messages[0]['content'] + '\n\n' + messages[1]['content']} %}"
    "{%- set messages = [first] + messages[2:] %}{%- endif %}"
)


def resolve_base(base: Base, models_dir: Path) -> str:
    """What `from_pretrained` takes for `base`: a folder made on first use, the user's own, or the Hub id.

    Raises:
        BaseModelError: a package or a file is missing, or holds something else.
    """
    entry = base.entry
    match entry.source:
        case Packages() as packages:
            return str(from_packages(entry, packages, models_dir))
        case Made():
            from persona_dagster.models.random_model import make_random

            return str(made_once(models_dir, f"{entry.name}-{MADE}", lambda folder: make_random(entry, folder)))
        case Folder(folder=folder, file=None):
            return str(folder)
        case Folder(folder=folder, file=str(file)):
            return str(from_gguf(entry, folder / file, models_dir))
        case Hub(hub=hub, file=None):
            return hub
        case Hub(hub=hub, file=str(file)):
            from huggingface_hub import hf_hub_download

            with _clear_errors(base):
                return str(from_gguf(entry, Path(hf_hub_download(hub, file, revision=base.hub_revision)), models_dir))
    raise AssertionError(entry.source)


def base_revision(base: Base) -> str:
    """What stands for the base's weights in an adapter's digest and card. Reads no weights, calls no network."""
    match base.entry.source:
        case Packages(sha256=sha256):
            return f"sha256 {sha256}, made {MADE}"
        case Made():
            return f"made {MADE}"
        case Folder(folder=folder):
            names = ("*.safetensors", "*.gguf")
            weights = sorted((path.name, str(path.stat().st_size)) for name in names for path in folder.glob(name))
            config = [file_digest(folder / "config.json")] if (folder / "config.json").is_file() else []
            return text_digest(*config, *(part for pair in weights for part in pair))
    return base.hub_revision


def check_chat_template(base: Base) -> None:
    """Raises BaseModelError for a base in a folder of this machine that has no chat template, neither its own nor its
    entry's. Reads two files; one from the Hub is checked when its tokenizer is loaded, before the first step."""
    source = base.entry.source
    if base.entry.chat_template or not isinstance(source, Folder) or source.file:
        return
    settings = source.folder / "tokenizer_config.json"
    if not settings.is_file() or settings.with_name("chat_template.jinja").is_file():
        return
    if not json.loads(settings.read_text(encoding="utf-8")).get("chat_template"):
        raise BaseModelError(
            f"{source.folder} has no chat template: choose its instruct version as base.model, or give the base an "
            "entry with a chat_template (config/bases/NAME.yaml)"
        )


def load_tokenizer(base: Base, models_dir: Path) -> PreTrainedTokenizerBase:
    """The base's tokenizer as its entry wants it: template, end of turn as EOS, a PAD token, right padding.

    Raises:
        BaseModelError: the Hub refuses or cannot be reached; the entry names a token that the tokenizer lacks.
    """
    from transformers import AutoTokenizer

    with _clear_errors(base):
        tokenizer = AutoTokenizer.from_pretrained(resolve_base(base, models_dir), revision=base.hub_revision)
    return as_described(tokenizer, base.entry)


def as_described(tokenizer: PreTrainedTokenizerBase, entry: BaseEntry) -> PreTrainedTokenizerBase:
    """`tokenizer` with what its entry says: saved, it says so too."""
    if entry.chat_template is not None:
        tokenizer.chat_template = entry.chat_template
    if "system" not in entry.roles and tokenizer.chat_template:
        tokenizer.chat_template = _FOLD_SYSTEM + tokenizer.chat_template
    missing = [token for token in entry.end_of_turn if token not in tokenizer.get_vocab()]
    if missing:
        raise BaseModelError(f"base model {entry.name}: its tokenizer has no {', '.join(missing)}; correct end_of_turn")
    if entry.end_of_turn:
        tokenizer.eos_token = entry.end_of_turn[0]
    if tokenizer.pad_token is None:
        # Llama 3 has no PAD; its EOS is masked where it pads, and kept in the labels where it ends an answer.
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer


def adapter_tokenizer(folder: Path, base: Base, models_dir: Path) -> PreTrainedTokenizerBase:
    """The tokenizer that an adapter brings, template and all; where it brings none, its base's."""
    from transformers import AutoTokenizer

    if not (folder / "tokenizer_config.json").is_file():
        return load_tokenizer(base, models_dir)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    own = {"chat_template": None, "roles": ("system", "user", "assistant"), "end_of_turn": ()}
    return as_described(tokenizer, base.entry.model_copy(update=own if tokenizer.chat_template else {}))


def stop_ids(base: Base, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens at which an answer ends: the tokenizer's EOS first, then the others that the entry names."""
    known = tokenizer.get_vocab()
    return list(
        dict.fromkeys([tokenizer.eos_token_id, *(known[token] for token in base.entry.end_of_turn if token in known)])
    )


def load_base(
    base: Base, models_dir: Path, quantisation: Quantisation | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The base model on the device at hand, in `base.dtype` or nf4, and its tokenizer.

    Attention is eager on the CPU (the backward pass of SDPA is slow there), SDPA on CUDA.

    Raises:
        BaseModelError: unknown name, gated without a token, no network, nf4 without bitsandbytes.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # in a log, every tick of a bar is a line
    tokenizer = load_tokenizer(base, models_dir)
    cuda = torch.cuda.is_available()
    card = next(iter(cards()), None) if cuda else None

    def fitting(wanted: str) -> torch.dtype:
        here = precision(wanted, card) if cuda else _cpu_dtype(wanted)
        found: torch.dtype = getattr(torch, fitting_dtype(here, base.entry))
        return found

    arguments: dict[str, Any] = {
        "revision": base.hub_revision,
        "dtype": fitting(base.dtype),
        "attn_implementation": "sdpa" if cuda else "eager",
    }
    if quantisation is not None and quantisation.scheme == "nf4":
        arguments["dtype"] = fitting(quantisation.compute_dtype)
        arguments["quantization_config"] = _nf4(quantisation, arguments["dtype"])
    if cuda:
        arguments["device_map"] = {"": torch.cuda.current_device()}
    with _clear_errors(base):
        model = AutoModelForCausalLM.from_pretrained(resolve_base(base, models_dir), **arguments)
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def fitting_dtype(wanted: str, entry: BaseEntry) -> str:
    """`wanted`, or float32 where the model's arithmetic does not hold in it: Gemma 3 overflows float16."""
    return wanted if wanted in entry.dtypes else "float32"


def for_asking(model: PreTrainedModel) -> None:
    """Makes a model faster that is asked, not trained: `weight_first`, and SDPA, with keys and values left grouped.

    transformers repeats them for every query head wherever a mask is given. torch's CPU kernel takes them as they
    are: of a batch of 64 answers of SmolLM2 the copies were a quarter of the time (torch 2.13).
    """
    import torch
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def grouped(module: Any, query: Any, key: Any, value: Any, mask: Any, **others: Any) -> tuple[Any, None]:
        if mask is None:
            return sdpa_attention_forward(module, query, key, value, mask, **others)
        attend = torch.nn.functional.scaled_dot_product_attention
        out = attend(query, key, value, attn_mask=mask, scale=others["scaling"], enable_gqa=True)
        return out.transpose(1, 2).contiguous(), None

    on_cpu = model.device.type == "cpu"
    if on_cpu:
        weight_first(model)
    AttentionInterface.register("sdpa_grouped", grouped)
    AttentionMaskInterface.register("sdpa_grouped", sdpa_mask)
    with suppress(ValueError):  # a model without SDPA keeps what it has
        model.set_attn_implementation("sdpa_grouped" if on_cpu else "sdpa")


def _cpu_dtype(wanted: str) -> str:
    """float32 where the CPU has no half-precision arithmetic.

    With AVX2 alone a bfloat16 matrix product runs at 0.8 GFLOP/s against 40 in float32 (2 cores of an AMD EPYC,
    torch 2.13): a training step took 353 s. With AVX512-BF16 or AMX bfloat16 is the faster one.
    """
    import torch

    fast = torch.ops.mkldnn._is_mkldnn_bf16_supported()  # torch has no public name for it
    return wanted if wanted == "bfloat16" and fast else "float32"


def _nf4(quantisation: Quantisation, compute: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=quantisation.double_quant,
        bnb_4bit_compute_dtype=compute,
    )


class _clear_errors:  # noqa: N801  (reads as a verb at its two uses)
    """Turns errors of the Hub and of missing packages into one that names the cure."""

    def __init__(self, base: Base) -> None:
        self.base = base

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, OSError | ImportError) and not isinstance(error, BaseModelError):
            gated = any(word in str(error).lower() for word in ("gated", "401", "403"))
            cure = (
                "accept its licence on huggingface.co and set HF_TOKEN"
                if gated
                else "check the name, the network and the cache, or choose an entry that a package brings (gemma3-270m)"
            )
            raise BaseModelError(f"base model {self.base.model}: {error}. Cure: {cure}.") from error
