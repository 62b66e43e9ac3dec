"""Names of people by a token classification model, where PERSONA_NAME_MODEL gives one: `id` or `id@revision` of the
Hugging Face Hub, or a folder. The rules of names.py know a name only where the text announces it.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import polars as pl

PERSON = re.compile(r"(?:^|[-_])PER(?:SON)?$", re.IGNORECASE)  # PER, PERSON, B-PER: as models of names label them
KEPT = re.compile(r"<[A-Z_]{2,12}>|\[[^\[\]\n]{1,20}\]")  # placeholders and tags
OVERLAP = 32  # tokens that two windows of a long text share
AT_ONCE = 16  # texts


class NameModelError(RuntimeError):
    """The model cannot be had or names nobody; the message says which it is and the cure."""


def mask_names(texts: pl.Series, model: str) -> tuple[pl.Series, int]:
    """The column with every name that the model finds replaced by `<NAME>`, and how many.

    Raises:
        NameModelError: no such model, or none that labels people.
    """
    rows = texts.str.contains(r"\pL").fill_null(value=False).arg_true()
    if not len(rows):
        return texts, 0
    masked, count = [], 0
    given = texts.gather(rows).to_list()
    for text, entities in zip(given, _reader(model)(given, batch_size=AT_ONCE), strict=True):
        parts, done = [], 0
        kept = [found.span() for found in KEPT.finditer(text)]
        for start, end in ((one["start"], one["end"]) for one in entities if PERSON.search(one["entity_group"])):
            if start >= done and not any(start < right and left < end for left, right in kept):
                parts += [text[done:start], "<NAME>"]
                done, count = end, count + 1
        masked.append("".join([*parts, text[done:]]))
    return texts.clone().scatter(rows, pl.Series(masked, dtype=pl.String)), count


@cache
def _reader(model: str) -> Any:
    from transformers import pipeline

    name, _, revision = model.partition("@")
    try:
        reader: Any = pipeline(
            "token-classification", model=name, revision=revision or None, aggregation_strategy="simple", stride=OVERLAP
        )
    except (OSError, ValueError) as error:
        raise NameModelError(f"PERSONA_NAME_MODEL={model} cannot be had ({error}); name another, or none") from error
    if not any(PERSON.search(label) for label in reader.model.config.id2label.values()):
        raise NameModelError(f"PERSONA_NAME_MODEL={model} has no label for people (PER, PERSON); name another, or none")
    most = reader.model.config.max_position_embeddings
    reader.tokenizer.model_max_length = min(reader.tokenizer.model_max_length, most)
    return reader
