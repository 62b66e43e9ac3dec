"""Names in their canonical form: persona tags, sources and boards, and a report of the unknown ones."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl

from persona_dagster.corpus.tables import run_sql
from persona_dagster.digest import text_digest


def label_key(label: str) -> str:
    """What is compared: width, case, brackets, spaces and the word 人格 do not tell labels apart."""
    plain = unicodedata.normalize("NFKC", label).casefold()
    plain = re.sub(r"[\[\]【】〔〕()「」『』《》<>\s_\-]+", "", plain)
    return re.sub(r"^(?:人格|persona|角色)[::]?", "", plain)


def labels_version(personas: Mapping[str, Any]) -> str:
    """Hash of what decides the tags that cleaning writes; the rest of a persona concerns its dialogues only."""
    return text_digest(
        *(name for key, persona in sorted(personas.items()) for name in (key, persona.tag, *persona.aliases))
    )


def standardise_label(text: str, personas: Mapping[str, Any]) -> str | None:
    """The canonical tag (`[NLP 技術助教]`) of a persona label in any spelling; None for an unknown one.

    `personas` maps a key to a persona with `.tag` and `.aliases` (config.personas).
    """
    wanted = label_key(text)
    for key, persona in personas.items():
        if wanted in {label_key(name) for name in (key, persona.tag, *persona.aliases)}:
            return persona.tag
    return None


# A label that a text begins with: named as one (`[人格:x]`), or in brackets that may hold a known one.
LEADING = re.compile(
    r"\A\s*[\[［【](?P<label>\s*(?:(?P<named>人格|persona|角色)\s*[:：])?[^\[\]［］【】\n]{1,20})[\]］】]",
    re.IGNORECASE,
)


def standardise_tags(texts: pl.Series, personas: Mapping[str, Any]) -> tuple[pl.Series, Counter[str]]:
    """Texts that begin with a persona's label in any spelling begin with its tag; and labels that nobody knows."""
    rows = texts.str.contains(r"\A\s*[\[［【]").fill_null(value=False).arg_true()
    unknown: Counter[str] = Counter()
    spelt = []
    for text in texts.gather(rows):
        found = LEADING.match(text)
        tag = standardise_label(found["label"], personas) if found else None
        if found and tag is None and found["named"]:
            unknown[found["label"].strip()] += 1
        spelt.append(f"{tag}{text[found.end() :]}" if found and tag else text)
    if not spelt:
        return texts, unknown
    return texts.clone().scatter(rows, pl.Series(spelt, dtype=pl.String)), unknown


def standardise_boards(boards: pl.Series, known: tuple[str, ...]) -> tuple[pl.Series, Counter[str]]:
    """Boards as config/sources/ spells them (`known`), and how many rows stand on those that it does not name.

    DuckDB has no NFKC, so Python spells each name out once; which is which, SQL joins.
    """
    spelt = boards.drop_nulls().value_counts(name="rows").rename({boards.name: "board"})
    plain = [_plain(board) for board in spelt["board"]]
    found = run_sql(
        "labels",
        spelt=spelt.with_columns(plain=pl.Series(plain, dtype=pl.String), key=_keys(plain)),
        known=pl.DataFrame({"name": pl.Series(known, dtype=pl.String), "key": _keys(known)}),
    )
    unlisted: Counter[str] = Counter()
    for name, rows in found.filter("unlisted").select("name", "rows").iter_rows():
        unlisted[name] += rows
    return boards.replace(found["board"], found["name"]), unlisted


def _plain(name: str) -> str:
    return unicodedata.normalize("NFKC", name).strip()


def _keys(names: Iterable[str]) -> pl.Series:
    return pl.Series([_plain(name).casefold() for name in names], dtype=pl.String)
