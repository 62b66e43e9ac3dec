"""Bases that are made here, once: out of the GGUF that data packages bring, or at random. Kept under `models_dir`.

A GGUF is converted to safetensors in bfloat16 with a fast tokenizer. That of a sentencepiece model is built from the
GGUF's own fields: transformers' conversion cuts text into other pieces (5.17), without an error.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from persona_dagster.artifacts import replacing
from persona_dagster.config.base_models import BaseEntry, Keep, Packages, Part
from persona_dagster.digest import json_digest

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

MADE = "2"  # raise when what is made of a source changes: caches and adapters follow

# llama.cpp's token types
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4


class BaseModelError(RuntimeError):
    """A base model that cannot be had; the message names it and the cure."""


def made_once(models_dir: Path, name: str, make: Callable[[Path], None]) -> Path:
    """`models_dir/name`, made by `make(folder)` once however many processes ask; whole or absent, never half."""
    target = models_dir / name
    if target.is_dir():
        return target
    models_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(models_dir / f"{name}.lock"):
        if target.is_dir():
            return target
        with replacing(target) as fresh:
            make(fresh)
    return target


def from_packages(entry: BaseEntry, source: Packages, models_dir: Path) -> Path:
    """The folder of a packaged base, made of its verified file on first use.

    Raises:
        BaseModelError: a package or its file is missing, or the sha256 of the whole is another.
    """

    def make(folder: Path) -> None:
        terms = " ".join(filter(None, (entry.licence.notice or entry.licence.id, entry.licence.url)))
        whole = join_parts(entry, folder / "model.gguf")
        print(f"{entry.title or entry.name}: {terms}. Converting it, once.", flush=True)
        convert(whole, folder, entry.keep)
        whole.unlink()

    return made_once(models_dir, _made_name(entry, source.sha256), make)


def from_gguf(entry: BaseEntry, file: Path, models_dir: Path) -> Path:
    """The folder made of a GGUF file of the user's or the Hub's."""
    if not file.is_file():
        raise BaseModelError(f"base model {entry.name}: no file {file}; correct source.file of its entry")
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()

    def make(folder: Path) -> None:
        link = folder / "model.gguf"
        link.symlink_to(file.resolve())
        convert(link, folder, entry.keep)
        link.unlink()

    return made_once(models_dir, _made_name(entry, digest), make)


def _made_name(entry: BaseEntry, sha256: str) -> str:
    kept = f"-{json_digest(entry.keep.model_dump())[:8]}" if entry.keep else ""
    return f"{entry.name.replace('/', '--')}-{sha256[:8]}-{MADE}{kept}"


def _installed(entry: BaseEntry, source: Packages, part: Part) -> Path:
    """Where the part's file lies. Found in the list of the package's files: importing it would run its code."""
    try:
        found = metadata.distribution(part.package)
    except metadata.PackageNotFoundError as error:
        raise BaseModelError(
            f"base model {entry.name}: the package {part.package} is not installed. Cure: {source.install}"
        ) from error
    path = Path(str(found.locate_file(part.file)))
    if found.version != part.version or not path.is_file():
        raise BaseModelError(
            f"base model {entry.name}: {part.package} {found.version} holds no {part.file} of version {part.version}. "
            f"Cure: {source.install}"
        )
    return path


def check_installed(entry: BaseEntry) -> None:
    """Raises `BaseModelError` where a packaged base lacks a package; other bases are not looked at."""
    if isinstance(entry.source, Packages):
        for part in entry.source.parts:
            _installed(entry, entry.source, part)


def join_parts(entry: BaseEntry, whole: Path) -> Path:
    """The parts of a packaged base, one after the other, as the file `whole`, its sha256 verified.

    Raises:
        BaseModelError: a part is missing, or the whole is another.
    """
    source = entry.source
    assert isinstance(source, Packages)
    paths = [_installed(entry, source, part) for part in source.parts]
    digest = hashlib.sha256()
    with whole.open("wb") as out:
        for path in paths:
            with path.open("rb") as part:
                while block := part.read(1 << 22):
                    digest.update(block)
                    out.write(block)
    if digest.hexdigest() != source.sha256:
        whole.unlink()
        raise BaseModelError(
            f"base model {entry.name}: its packages hold sha256 {digest.hexdigest()[:12]}…, not "
            f"{source.sha256[:12]}… as its entry says; nothing was written. Install them again: {source.install}"
        )
    return whole


def convert(gguf_file: Path, folder: Path, keep: Keep | None = None) -> None:
    """A GGUF as safetensors in bfloat16 and a tokenizer, in `folder`, with the pieces that `keep` says.

    As transformers loads it, it can be neither trained nor saved: it still says that it is quantised.

    Raises:
        BaseModelError: `keep` for a vocabulary that is not sentencepiece's.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source, file = str(gguf_file.parent), gguf_file.name
    with _read_once() as read:
        model = AutoModelForCausalLM.from_pretrained(source, gguf_file=file, dtype=torch.bfloat16)
        fields = _TokenFields(read(str(gguf_file)))
        if fields.model == "llama":
            kept = fields.kept(keep)
            tokenizer = fields.sentencepiece(kept)
            _keep_rows(model, kept, tokenizer)
        elif keep:
            raise BaseModelError(
                f"{file}: keep is for the vocabularies of sentencepiece, and this one is {fields.model}: leave keep out"
            )
        else:
            tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=file)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    del model.hf_quantizer
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _keep_rows(model: Any, kept: list[int], tokenizer: PreTrainedTokenizerBase) -> None:
    """Leaves of embedding and head the rows of these tokens, in this order."""
    if len(kept) == model.config.vocab_size:
        return
    rows = [layer.weight.data[kept] for layer in (model.get_input_embeddings(), model.get_output_embeddings())]
    model.resize_token_embeddings(len(kept), mean_resizing=False)
    for layer, own in zip((model.get_input_embeddings(), model.get_output_embeddings()), rows, strict=True):
        layer.weight.data.copy_(own)
    for config in (model.config, model.generation_config):
        for name in ("bos", "eos", "pad"):
            setattr(config, f"{name}_token_id", getattr(tokenizer, f"{name}_token_id"))


@contextmanager
def _read_once() -> Iterator[Callable[[str], Any]]:
    """transformers reads a GGUF three times, 10 s each for 262 k tokens, under plain bars: here once, in silence."""
    import gguf
    from transformers import modeling_gguf_pytorch_utils as loading

    bar, reader = loading.tqdm, gguf.GGUFReader
    once = lru_cache(maxsize=1)(reader)

    def read(path: Any) -> Any:
        return once(str(path))

    loading.tqdm, gguf.GGUFReader = (lambda items, **_: items), read  # type: ignore[assignment, misc]
    try:
        yield read
    finally:
        loading.tqdm, gguf.GGUFReader = bar, reader  # type: ignore[misc]


class _TokenFields:
    """What a GGUF says of its tokenizer."""

    def __init__(self, reader: Any) -> None:
        self._fields = reader.fields
        self._read: dict[str, Any] = {}  # 262 k pieces take seconds
        self.model = self._of("model")

    def _of(self, name: str) -> Any:
        if name not in self._read:
            field = self._fields.get(f"tokenizer.ggml.{name}")
            self._read[name] = None if field is None else field.contents()
        return self._read[name]

    def kept(self, keep: Keep | None) -> list[int]:
        """Ids of the pieces that stay, in their order."""
        tokens, types = self._of("tokens"), self._of("token_type")
        return list(range(len(tokens))) if keep is None else kept_pieces(tokens, types, keep)

    def sentencepiece(self, kept: list[int]) -> PreTrainedTokenizerBase:
        from transformers import PreTrainedTokenizerFast

        tokens, types, scores = ([self._of(name)[i] for i in kept] for name in ("tokens", "token_type", "scores"))
        # User-defined pieces stand in a GGUF as they read; all others with `▁` for a blank.
        pieces = [
            token.replace(" ", "▁") if kind == _USER_DEFINED else token
            for token, kind in zip(tokens, types, strict=True)
        ]
        names = {name: self._of(f"{key}_token_id") for name, key in _SPECIAL.items()}
        special = {name: self._of("tokens")[index] for name, index in names.items() if index is not None}
        return PreTrainedTokenizerFast(tokenizer_object=sentencepiece_bpe(pieces, scores, types), **special)


_UNUSED = re.compile(r"<unused\d+>")
_SPECIAL = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


def kept_pieces(pieces: list[str], types: list[int], keep: Keep) -> list[int]:
    """Ids of the pieces of `keep`, and of all that are no normal text: bytes, control tokens, what is named whole.

    Letters come last, and all other pieces after those that they are made of: so the first ones can all be reached.
    """
    import regex

    shared = r"\p{Common}\p{Inherited}"
    whole = regex.compile("[" + "".join(rf"\p{{{script}}}" for script in keep.scripts) + shared + "]+")
    latin = regex.compile(f"[A-Za-z{shared}]+")
    kept, left = [], keep.latin
    for index, (piece, kind) in enumerate(zip(pieces, types, strict=True)):
        if kind == _USER_DEFINED:
            stays = not _UNUSED.fullmatch(piece)
        elif kind != _NORMAL or whole.fullmatch(piece):
            stays = True
        else:
            stays = latin.fullmatch(piece) is not None and (left > 0 or len(piece) == 1)
            left -= stays
        if stays:
            kept.append(index)
    return kept


def sentencepiece_bpe(pieces: list[str], scores: list[float], types: list[int]) -> Tokenizer:
    """A fast tokenizer that cuts text as sentencepiece's BPE of these pieces does, without a leading blank.

    Sentencepiece joins the neighbours whose joint piece has the best score; a fast BPE wants a list of pairs. So: all
    ways to split a normal piece into two known ones, in the order of the piece's score. `types` are llama.cpp's.
    Cut alike: 10,300 lines of zh-TW, English, code and emoji (sentencepiece 0.2.3).
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

    known = {piece: index for index, piece in enumerate(pieces)}
    merges = sorted(
        (-scores[index], index, known[piece[:cut]], piece[:cut], piece[cut:])
        for index, piece in enumerate(pieces)
        if types[index] == _NORMAL
        for cut in range(1, len(piece))
        if piece[:cut] in known and piece[cut:] in known
    )
    unknown = next((piece for piece, kind in zip(pieces, types, strict=True) if kind == _UNKNOWN), "<unk>")
    tokenizer = Tokenizer(
        models.BPE(
            vocab=known,
            merges=[(left, right) for *_, left, right in merges],
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    by_type: dict[int, list[str]] = {}
    for piece, kind in zip(pieces, types, strict=True):
        by_type.setdefault(kind, []).append(piece)
    control = [AddedToken(piece, normalized=False, special=True) for piece in by_type.get(_CONTROL, [])]
    tokenizer.add_special_tokens(control)
    # Runs of blanks must match after blanks became `▁`; line ends and others as they stand.
    tokenizer.add_tokens([AddedToken(piece, normalized="▁" in piece) for piece in by_type.get(_USER_DEFINED, [])])
    return tokenizer
