"""GGUF for llama.cpp and Ollama, by llama.cpp's own converter, and the Modelfiles that give it the personas.

The converter is the one that the operator points to ($PERSONA_GGUF_CONVERTER), or that of the source package of
llama-cpp-python, fetched from PyPI once, by its sha256. Nothing of it is compiled.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from persona_dagster.artifacts import replacing
from persona_dagster.chat.engine import Sampling
from persona_dagster.config.personas import Persona, Personas
from persona_dagster.models.chat_format import system_message
from persona_dagster.publishing.verify_export import Reader, ReferenceAnswer
from persona_dagster.worker_processes import worker_processes

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

CONVERTER_VARIABLE = "PERSONA_GGUF_CONVERTER"
SCRIPT = "convert_hf_to_gguf.py"
PACKAGE, VERSION = "llama-cpp-python", "0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"  # of the 76 MB of its source
_VENDORED = PurePosixPath(f"llama_cpp_python-{VERSION}/vendor/llama.cpp")
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6  # a piece's type, as sentencepiece numbers it
_NEEDED = (SCRIPT, "conversion", "gguf-py/gguf", "LICENSE")  # 2 MB

QUANTISER = "llama-quantize"
QUANTISED = ("q4_k_m", "q5_k_m")  # by llama.cpp's own program, out of float16; the converter makes the others
OUTTYPES = ("f32", "f16", "bf16", "q8_0", *QUANTISED)


class NoConverter(RuntimeError):  # noqa: N818  (a reason to skip, said as it is)
    """There is no converter here, or it cannot take this model; the message says why and what would help."""


def find_converter(chosen: Path | None, models_dir: Path) -> Path:
    """The script to run: `chosen`, else $PERSONA_GGUF_CONVERTER, else the one of llama-cpp-python's source.

    Raises:
        NoConverter: the path holds none, or PyPI cannot be reached.
    """
    if (named := chosen or os.environ.get(CONVERTER_VARIABLE)) is not None:
        script = Path(named) / SCRIPT if Path(named).is_dir() else Path(named)
        if not script.is_file():
            raise NoConverter(f"{named}: no {SCRIPT} there; name a checkout of llama.cpp, or its converter")
        return script
    folder = models_dir / f"llama.cpp-of-{PACKAGE}-{VERSION}"
    if not (folder / SCRIPT).is_file():
        with replacing(folder) as staging:
            _fetch(staging)
    return folder / SCRIPT


def convert(script: Path, merged: Path, target: Path, outtype: str, name: str) -> None:
    """`merged` (safetensors and tokenizer) as the GGUF `target`.

    Raises:
        NoConverter: the converter gave up; its own last words are in the message.
    """
    if outtype in QUANTISED:
        program = _find_quantiser(script)
        whole = target.with_suffix(".whole")
        convert(script, merged, whole, "f16", name)
        done = subprocess.run([program, whole, target, outtype.upper()], capture_output=True, text=True, check=False)
        whole.unlink()
        if done.returncode != 0 or not target.is_file():
            words = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
            raise NoConverter(f"{program} did not make a {outtype} of {merged.name}: {words[-1]}")
        return
    with _with_sentencepiece(merged) as folder:
        command = [sys.executable, str(script), str(folder), "--outfile", str(target), "--outtype", outtype]
        done = subprocess.run([*command, "--model-name", name], capture_output=True, text=True, check=False)
    if done.returncode != 0 or not target.is_file():
        words = done.stderr.strip().splitlines() or ["no reason given"]
        cure = "pip install sentencepiece" if "sentencepiece" in words[-1] else f"see {script.name} of llama.cpp"
        raise NoConverter(f"{script.name} did not take {merged.name}: {words[-1]} ({cure})")


def _find_quantiser(script: Path) -> str:
    found = shutil.which(QUANTISER, path=f"{script.parent / 'build' / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        raise NoConverter(
            f"{' and '.join(QUANTISED)} need {QUANTISER}, which is not on the PATH: install llama.cpp (brew, conda or "
            f"its releases), or choose {', '.join(one for one in OUTTYPES if one not in QUANTISED)}"
        )
    return found


@contextmanager
def _with_sentencepiece(merged: Path) -> Iterator[Path]:
    """`merged`, or where its tokenizer is sentencepiece's in a fast form, a view of it with the `tokenizer.model` that
    the converter wants: Gemma's base out of a GGUF has none."""
    described = merged / "tokenizer.json"
    tokenizer = json.loads(described.read_text(encoding="utf-8")) if described.is_file() else {}
    model, blanks = tokenizer.get("model", {}), tokenizer.get("normalizer") or {}
    if not (model.get("byte_fallback") and "▁" in json.dumps(blanks, ensure_ascii=False)):
        yield merged
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for path in merged.iterdir():
            (folder / path.name).symlink_to(path.resolve())
        if not (folder / "tokenizer.model").exists():
            (folder / "tokenizer.model").write_bytes(sentencepiece_model(tokenizer))
        config = json.loads((merged / "tokenizer_config.json").read_text(encoding="utf-8"))
        config["added_tokens_decoder"] = {str(one["id"]): one for one in tokenizer["added_tokens"]}
        (folder / "tokenizer_config.json").unlink()
        (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
        yield folder


def sentencepiece_model(tokenizer: Mapping[str, Any]) -> bytes:
    """The `tokenizer.model` (sentencepiece_model.proto) of a BPE that came from one, out of its tokenizer.json.

    Of the scores only their order counts; it is that of the merges.
    """
    model = tokenizer["model"]
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(model["merges"]):
        left, right = pair if isinstance(pair, list) else pair.split(" ")
        ranks.setdefault(left + right, rank)
    kinds = {one["content"]: _CONTROL if one["special"] else _USER_DEFINED for one in tokenizer["added_tokens"]}
    kinds[model["unk_token"]] = _UNKNOWN
    pieces = b""
    for piece in sorted(model["vocab"], key=model["vocab"].__getitem__):
        kind = kinds.get(piece) or (_BYTE if re.fullmatch("<0x[0-9A-F]{2}>", piece) else _NORMAL)
        score = struct.pack("<f", -float(ranks.get(piece, len(ranks))))
        # A message each: piece (1, text), score (2, float), type (3, number).
        pieces += _field(1, _field(1, piece.encode()) + b"\x15" + score + b"\x18" + bytes([kind]))
    bpe = b"\x18\x02" + _varint(35 << 3) + b"\x01"  # model_type (3): BPE; byte_fallback (35)
    as_it_is = _field(1, b"identity") + b"\x18\x00\x20\x00\x28\x01"  # no dummy prefix, blanks kept, and escaped
    return pieces + _field(2, bpe) + _field(3, as_it_is)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def check_holds(whole: Path, sample: Path, layers: Sequence[int]) -> None:
    """The tensors of `sample` stand in `whole`, byte for byte; its layers there as `layers`.

    Raises:
        NoConverter: one does not: the converter treats a large model in another way.
    """
    from gguf import GGUFReader

    tensors = {tensor.name: tensor for tensor in GGUFReader(whole).tensors}
    for tensor in GGUFReader(sample).tensors:
        _, found, rest = tensor.name.partition("blk.")
        number, _, tail = rest.partition(".")
        name = f"blk.{layers[int(number)]}.{tail}" if found else tensor.name
        same = tensors.get(name)
        if same is None or same.tensor_type != tensor.tensor_type or (same.data != tensor.data).any():
            raise NoConverter(f"{whole.name}: {name} is not what a sample of its layers has: report it with the model")


def modelfiles(personas: Personas, tokenizer: PreTrainedTokenizerBase, gguf: str, window: int) -> dict[str, str]:
    """Ollama's Modelfiles by file name: one a persona, and one without a system message, where the model chooses."""
    template = go_template(tokenizer)
    sampling = Sampling()
    parameters = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "repeat_penalty": sampling.repetition_penalty,
        "num_ctx": window,
        "stop": f'"{tokenizer.eos_token}"',
    }
    lines = [f"FROM ./{gguf}", f'TEMPLATE """{template}"""', *(f"PARAMETER {k} {v}" for k, v in parameters.items())]
    files = {"Modelfile": _modelfile("The model chooses its own voice.", lines)}
    for name, persona in personas.personas.items():
        files[f"Modelfile.{name}"] = _modelfile(f"{persona.title}.", [*lines, _system(persona)])
    return files


def go_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The tokenizer's chat template as Ollama's Go template, found by rendering marks in place of what is said.

    Raises:
        NoConverter: the template is no plain sequence of turns.
    """
    lead, _ = _split(tokenizer, "user")
    system, user, assistant, again, ask = _split(tokenizer, "system", "user", "assistant", "user")
    # Ends of turns go to the turn that they end, so that each block stands alone: `…<|im_end|>\n`.
    user_end, assistant_start = _after_end(ask, tokenizer)
    start = _after_end(user, tokenizer)[1]
    blocks = {
        "system": (system, user.removesuffix(start)),
        "user": (start, user_end),
        "assistant": (assistant_start, again.removesuffix(start)),
    }
    unsaid = lead.removesuffix(start)  # what a chat without a system message begins with
    if (
        assistant != ask
        or '"""' in "".join((lead, system, user, again))
        or not (lead.endswith(start) and again.endswith(start))
    ):
        raise NoConverter("the chat template is no plain sequence of turns: write Ollama's TEMPLATE by hand")
    said = "{{ else if eq .Role ".join(
        f'"{role}" }}}}{before}{{{{ .Content }}}}{after}' for role, (before, after) in blocks.items()
    )
    otherwise = f"{{{{ if not .System }}}}{unsaid}{{{{ end }}}}" if unsaid else ""
    turns = f"{{{{ range .Messages }}}}{{{{ if eq .Role {said}{{{{ end }}}}{{{{ end }}}}"
    return otherwise + turns + assistant_start


def llama_cpp_reader(gguf: Path, window: int) -> Reader:
    """Reads with llama.cpp itself, which must cut the prompts into the same tokens.

    In a process of its own: llama.cpp ends the one it runs in when a GGUF is not what it expects.
    """
    import torch

    def read(said: Sequence[ReferenceAnswer]) -> list[Tensor]:
        asked = [(one.prompt, one.ids, one.start) for one in said]
        with worker_processes(1) as pool:
            try:
                logits = pool.submit(_read_with_llama_cpp, gguf, window, asked).result()
            except BrokenProcessPool as error:
                raise NoConverter(
                    f"llama.cpp died reading {gguf.name}: its vocabulary or tensors are not right"
                ) from error
        return [torch.from_numpy(own).log_softmax(-1) for own in logits]

    return read


def _read_with_llama_cpp(gguf: Path, window: int, asked: list[tuple[str, list[int], int]]) -> list[Any]:
    """Logits (answer tokens, vocabulary) of each `(prompt, ids, start)`, float32 arrays."""
    os.environ["GGML_NO_BACKTRACE"] = "1"
    from llama_cpp import Llama

    llama = Llama(str(gguf), n_ctx=window, logits_all=True, verbose=False)
    read = []
    for prompt, ids, start in asked:
        if llama.tokenize(prompt.encode(), add_bos=False, special=True) != ids[:start]:
            raise NoConverter(f"llama.cpp cuts {prompt[-40:]!r} into other tokens than the tokenizer does")
        llama.reset()
        llama.eval(ids)
        read.append(llama.scores[start - 1 : len(ids) - 1].copy())
    return read


def _fetch(folder: Path) -> None:
    """The converter's files out of the source package, whose hash pip checks first. Nothing of it is compiled."""
    with tempfile.TemporaryDirectory() as scratch:
        wanted = Path(scratch, "wanted.txt")
        wanted.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps", "-q"]
        command += ["--require-hashes", "--no-binary", PACKAGE, "-r", str(wanted), "--dest", scratch]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        source = Path(scratch) / f"llama_cpp_python-{VERSION}.tar.gz"
        if done.returncode != 0 or not source.is_file():
            words = done.stderr.strip().splitlines() or ["no reason given"]
            raise NoConverter(
                f"no converter to GGUF: pip could not get the source of {PACKAGE} {VERSION} ({words[-1]}). "
                f"Set {CONVERTER_VARIABLE} to a checkout of llama.cpp."
            )
        with tarfile.open(source) as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                inside = path.relative_to(_VENDORED).as_posix() if path.is_relative_to(_VENDORED) else ""
                if member.isfile() and any(inside == part or inside.startswith(f"{part}/") for part in _NEEDED):
                    member.name = inside
                    archive.extract(member, folder, filter="data")


def _system(persona: Persona) -> str:
    return f'SYSTEM """{system_message(persona)}"""'


def _modelfile(comment: str, lines: list[str]) -> str:
    return "\n".join([f"# {comment}", *lines]) + "\n"


def _split(tokenizer: PreTrainedTokenizerBase, *roles: str) -> list[str]:
    """What the chat template puts before, between and after such turns; llama.cpp adds the BOS token itself."""
    mark = "\ue000"
    turns = [{"role": role, "content": mark} for role in roles]
    text = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    if tokenizer.bos_token and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id:
        text = text.removeprefix(tokenizer.bos_token)
    pieces = text.split(mark)
    if len(pieces) != len(roles) + 1:
        raise NoConverter("the chat template repeats or drops turns: write Ollama's TEMPLATE by hand")
    return pieces


def _after_end(text: str, tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """`text` up to the end of its last turn, line breaks included, and from there on."""
    eos = str(tokenizer.eos_token)
    end = text.rfind(eos) + len(eos) if eos in text else 0
    end += len(text[end:]) - len(text[end:].lstrip("\n"))
    return text[:end], text[end:]
