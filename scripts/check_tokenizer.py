"""Holds the tokenizer of gemma3-270m against sentencepiece's own, line by line.

    python scripts/check_tokenizer.py ../shared/data WORK_FOLDER

Lines: forum posts and notes of the folder, Python sources, drawn emoji, blanks and half control tokens. sentencepiece
runs in WORK_FOLDER/venv: its protobuf code wants protobuf 7, Dagster less. Prints a JSON of the counts: lines that we
cut otherwise than sentencepiece does with the pieces that are kept, that do not come back, and that it cuts otherwise
with all pieces.
"""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

from persona_dagster.config.base_models import Base
from persona_dagster.models.base_model import load_tokenizer
from persona_dagster.settings import PROJECT_ROOT, Settings

# In the other environment: a model of the GGUF's own pieces, and what sentencepiece makes of each line.
_OTHER = """
import json, sys
from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2 as pb
fields, lines = json.load(open(sys.argv[1])), json.load(open(sys.argv[2]))
model = pb.ModelProto()
for piece, score, kind in zip(*fields):
    kind, piece = 2 if piece == "<unk>" else kind, piece.replace(" ", "▁") if kind == 4 else piece
    model.pieces.add(piece=piece, score=score, type=kind)
trainer, normalizer = model.trainer_spec, model.normalizer_spec
trainer.model_type, trainer.byte_fallback, trainer.vocab_size = pb.TrainerSpec.BPE, True, len(model.pieces)
trainer.pad_id, trainer.eos_id, trainer.bos_id, trainer.unk_id = 0, 1, 2, 3
trainer.pad_piece, trainer.eos_piece, trainer.bos_piece, trainer.unk_piece = "<pad>", "<eos>", "<bos>", "<unk>"
normalizer.name, normalizer.add_dummy_prefix, normalizer.remove_extra_whitespaces = "identity", False, False
processor = SentencePieceProcessor(model_proto=model.SerializeToString())
json.dump([processor.encode(line) for line in lines], open(sys.argv[3], "w"))
"""


def lines_of(data: Path) -> list[str]:
    draw = random.Random(1)
    with gzip.open(data / "corpus" / "forum_posts.jsonl.gz", "rt", encoding="utf-8") as file:
        posts = [json.loads(line)["text"] for line in file]
    notes = [line for path in data.rglob("notes_zhtw/**/*.md*") for line in path.read_text("utf-8").splitlines()]
    code = [
        line
        for path in (PROJECT_ROOT / "persona_dagster").rglob("*.py")
        for line in path.read_text("utf-8").splitlines()
    ]
    bits = [
        "😂",
        "🤷\u200d♂️",
        "好",
        " ",
        "  ",
        "ㄅ",
        "\t",
        "\u3000",
        "A\u0301",
        "한",
        "\n\n\n",
        "<end_of",
        "<0x41>",
        "é",
    ]
    drawn = ["".join(draw.choices(bits, k=draw.randint(1, 24))) for _ in range(1000)]
    return [
        *draw.sample([post for post in posts if post], 4000),
        *draw.sample(notes, 1500),
        *draw.sample(code, 1500),
        *drawn,
    ]


def main(data: Path, work: Path) -> int:
    from gguf import GGUFReader

    from persona_dagster.models.packaged import join_parts, kept_pieces

    work.mkdir(parents=True, exist_ok=True)
    base = Base(model="gemma3-270m")
    whole = join_parts(base.entry, work / "whole.gguf")
    fields = GGUFReader(whole).fields
    told = [fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "scores", "token_type")]
    assert base.entry.keep
    kept = kept_pieces(told[0], told[2], base.entry.keep)
    lines = lines_of(data)
    venv.create(work / "venv", with_pip=True)
    python = work / "venv" / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "sentencepiece", "protobuf"], check=True, stdout=sys.stderr
    )

    def sentencepiece(pieces: list[list[Any]]) -> list[list[int]]:
        files = [work / f"{name}.json" for name in ("fields", "lines", "theirs")]
        for file, value in zip(files, (pieces, lines), strict=False):
            file.write_text(json.dumps(value), encoding="utf-8")
        subprocess.run([python, "-c", _OTHER, *map(str, files)], check=True)
        found: list[list[int]] = json.loads(files[2].read_text(encoding="utf-8"))
        return found

    theirs = sentencepiece([[field[index] for index in kept] for field in told])
    whole_cut = sentencepiece(told)
    tokenizer = load_tokenizer(base, Settings().models_dir)
    ours = [list(tokenizer(line, add_special_tokens=False)["input_ids"]) for line in lines]
    differ = [line for line, one, other in zip(lines, ours, theirs, strict=True) if one != other]
    finer = sum([kept[index] for index in one] != other for one, other in zip(theirs, whole_cut, strict=True))
    lost = [line for line, ids in zip(lines, ours, strict=True) if "▁" not in line and tokenizer.decode(ids) != line]
    for line in [*differ, *lost][:5]:
        print(repr(line[:80]), file=sys.stderr)
    print(json.dumps({"lines": len(lines), "differ": len(differ), "round_trip_lost": len(lost), "finer": finer}))
    return 1 if differ or lost else 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), Path(sys.argv[2])))
