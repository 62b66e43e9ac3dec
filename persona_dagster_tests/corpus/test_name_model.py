"""Names by a model of token classification: transformers' own pipeline over a tiny one with weights set by hand."""

from __future__ import annotations

from pathlib import Path

import orjson
import polars as pl
import pytest

from persona_dagster.config.sources import load_sources
from persona_dagster.corpus.clean_file import clean_file
from persona_dagster.corpus.personal_data.name_model import NameModelError, mask_names

NAME = "阿布拉"  # its letters are names to this model, all others are not


def model_at(folder: Path, labels: tuple[str, str] = ("O", "I-PER")) -> str:
    """A BERT without a block, whose embeddings of `NAME`'s letters point the other way."""
    import torch
    from transformers import BertConfig, BertForTokenClassification, BertTokenizerFast

    folder.mkdir()
    letters = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *NAME, *"昨天跟去看電影的晚上說他很好"]
    config = BertConfig(
        vocab_size=len(letters), hidden_size=4, num_hidden_layers=0, num_attention_heads=1, intermediate_size=4,
        max_position_embeddings=64, id2label=dict(enumerate(labels)), label2id={b: a for a, b in enumerate(labels)},
    )  # fmt: skip
    model = BertForTokenClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.bert.embeddings.LayerNorm.weight.fill_(1.0)
        ours = torch.tensor([5 <= place < 5 + len(NAME) for place in range(len(letters))])
        words = torch.where(ours[:, None], torch.tensor([1.0, -1, 1, -1]), torch.tensor([-1.0, 1, -1, 1]))
        model.bert.embeddings.word_embeddings.weight.copy_(words)
        model.classifier.weight.copy_(torch.tensor([[-1.0, 1, -1, 1], [1.0, -1, 1, -1]]))
    model.save_pretrained(folder)
    BertTokenizerFast(vocab={letter: place for place, letter in enumerate(letters)}).save_pretrained(folder)
    return str(folder)


def test_names_are_masked_wherever_the_model_sees_them(tmp_path: Path) -> None:
    model, long = model_at(tmp_path / "model"), "的" * 200
    texts = pl.Series(["昨天跟阿布拉去看電影", f"{long}阿布拉說他很好", None, "[阿布拉] 說 <NAME> 很好", "", "很好"])
    masked, count = mask_names(texts, model)
    assert masked.to_list() == ["昨天跟<NAME>去看電影", f"{long}<NAME>說他很好", None, *texts[3:]]
    assert count == 2


def test_persona_clean_masks_them_where_a_model_is_set(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(
        orjson.dumps(
            {"source": "dcard", "kind": "post", "id": "1", "board": "mood", "text": "昨天晚上跟阿布拉去看電影"}
        )
    )
    said = []
    for model in (None, model_at(tmp_path / "model")):
        funnel = clean_file(
            tmp_path / "in.jsonl", tmp_path / "out.jsonl", load_sources(tmp_path, "sample"), name_model=model
        )
        said.append((orjson.loads((tmp_path / "out.jsonl").read_bytes())["text"], funnel.personal_data["NAME"]))
    assert said[0] == ("昨天晚上跟阿布拉去看電影", 0) and said[1][0] == "昨天晚上跟<NAME>去看電影" and said[1][1]


def test_a_model_that_is_not_there_or_knows_no_people_is_named(tmp_path: Path) -> None:
    with pytest.raises(NameModelError, match="cannot be had"):
        mask_names(pl.Series(["說"]), str(tmp_path / "nowhere"))
    other = model_at(tmp_path / "places", ("O", "I-LOC"))
    with pytest.raises(NameModelError, match="no label for people"):
        mask_names(pl.Series(["說"]), other)
