"""Who answers whom and which voice an answer has, against labels that people gave to real rows.

    python benchmarks/voices.py HOME [--labels ../shared/labels] [--of forum_posts.jsonl.gz] [--package] [--plot PNG]

HOME: where the corpus of the labels was imported and built (`persona import …; persona build --until posts`). Prints
the share of true parents by evidence; the voices as the example lines alone give them; and with labels, nested by
thread: features' weights are fitted, and thresholds chosen, on the other folds. With --package the weights of all rows
are written to conversation/voices.npz, row numbers and no text beside them.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl
from real_data import real_data
from sklearn.metrics import average_precision_score
from sklearn.model_selection import GroupKFold

from persona_dagster.config.loading import PACKAGED
from persona_dagster.config.personas import load_personas
from persona_dagster.conversation.builders import asked
from persona_dagster.conversation.graph import imported_rows, named_rows
from persona_dagster.conversation.labels import origins
from persona_dagster.conversation.safety import load_unsafe, unsafe_kinds
from persona_dagster.conversation.voice_classifier import (
    PACKAGED_WEIGHTS,
    Voices,
    Weights,
    learn,
    threshold_for,
    write_packaged,
)
from persona_dagster.corpus.tables import WHOLE, Tables
from persona_dagster.models.embedding_cache import Vectors
from persona_dagster.records import POST_SCHEMA
from persona_dagster.settings import Settings

FOLDS, DRAWS = 5, 1000
WANTED = {"mentor": 0.85, "mouthpiece": 0.80}  # precision at the threshold
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    """The labelled answers that are in the corpus, with the question that the reply graph gives them."""

    frame: pl.DataFrame  # set, line, thread, stratum, voice, unsafe, parent, true_doc, graph_doc, evidence, texts

    def voice(self, name: str) -> Bools:
        return (self.frame["voice"] == name).to_numpy()

    @property
    def unsafe(self) -> Bools:
        return self.frame["unsafe"].to_numpy()


def read_rows(home: Path, folder: Path, of: str) -> Rows:
    from persona_dagster.conversation.graph import GRAPH_SCHEMA

    settings = Settings(home=home, profile="own")
    tables = Tables(settings.tables_dir)
    posts = tables.read("posts", POST_SCHEMA, [WHOLE])
    edges = tables.read("reply_graph", GRAPH_SCHEMA, [WHOLE])
    imported = imported_rows(settings.intake_dir)
    assert imported is not None, f"{home}: nothing was imported"
    docs = dict(origins(posts, imported).select("origin", "doc_id").iter_rows())
    found: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.jsonl")):
        for row in map(orjson.loads, path.read_bytes().splitlines()):
            doc = {name: docs.get(f"{of}:{row[name] + 1}") for name in ("line", "post_line") if row[name] is not None}
            parent = row["parent_line"]
            found.append(
                {name: row[name] for name in ("line", "stratum", "voice", "unsafe", "parent")}
                | {"set": path.stem, "doc_id": doc["line"], "thread": row["post_line"]}
                | {"true_doc": docs.get(f"{of}:{parent + 1}") if parent is not None else None}
            )
    texts = named_rows(posts).unique("doc_id", keep="first")
    first = edges.filter(pl.col("rank") == 1).select("doc_id", "evidence", graph_doc="parent_doc").unique("doc_id")
    frame = (
        pl.DataFrame(found, infer_schema_length=None)
        .join(texts.select("doc_id", answer=pl.col("text").str.strip_chars()), on="doc_id", maintain_order="left")
        .join(first, on="doc_id", how="left", maintain_order="left")
        .join(texts.select(graph_doc="doc_id", question=asked("title", "text")), on="graph_doc", how="left",
              maintain_order="left")
        .with_columns(pl.col("question").fill_null(""))
    )  # fmt: skip
    print(f"{frame.height} of {len(found)} labelled rows are in the corpus of {home}")
    return Rows(frame)


def parents(rows: Rows) -> None:
    """How many edges name the true parent: by evidence, of those with an explicit mark, of all that are clear."""
    clear = rows.frame.filter((pl.col("parent") != "unclear") & pl.col("true_doc").is_not_null())
    right = clear.with_columns(right=(pl.col("graph_doc") == pl.col("true_doc")).fill_null(value=False))
    table = right.group_by("evidence").agg(pl.len(), pl.col("right").sum()).sort("len", descending=True)
    for evidence, count, good in table.iter_rows():
        print(f"  {evidence}: {good} of {count}")
    marked = right.filter(pl.col("evidence").is_in(["floor", "floor_gone"]))
    for title, part in (("explicit marks", marked), ("all that are not unclear", right)):
        print(f"  {title}: {part['right'].sum()} of {part.height}, {part['right'].mean():.1%}")


def unseen(features: Floats, positive: Bools, threads: npt.NDArray[Any], lines: tuple[Floats, Bools] | None) -> Floats:
    """Probability of each row by weights of the other folds; `lines`: example lines, which are in every fold."""
    found = np.zeros(len(positive))
    for known, held in GroupKFold(min(FOLDS, len(set(threads)))).split(features, groups=threads):
        found[held] = fitted(features[known], positive[known], lines).probability(features[held])
    return found


def of_lines(voices: Voices, name: str, static: bool = False) -> tuple[Floats, Bools]:
    """The example lines of a persona as rows to learn from."""
    questions, answers, right = voices.lines(name)
    return (voices.static_features if static else voices.features)(questions, answers), right


def fitted(features: Floats, positive: Bools, lines: tuple[Floats, Bools] | None) -> Weights:
    if lines is not None:
        features, positive = np.vstack([features, lines[0]]), np.r_[positive, lines[1]]
    return learn(features, positive, np.ones(len(positive)))


@dataclass(frozen=True)
class Nested:
    """Of each row, by folds that never saw it: probabilities, and whether it is chosen."""

    probability: dict[str, Floats]
    chosen: dict[str, Bools]


def nested(rows: Rows, voices: Voices, features: Floats, lexicon: Bools) -> Nested:
    threads = rows.frame["thread"].to_numpy()
    probability = {name: np.zeros(len(threads)) for name in WANTED}
    chosen = {name: np.zeros(len(threads), dtype=bool) for name in WANTED}
    for name, wanted in WANTED.items():
        positive, lines = rows.voice(name), of_lines(voices, name)
        for known, held in GroupKFold(FOLDS).split(features, groups=threads):
            inner = unseen(features[known], positive[known], threads[known], lines)
            safe = ~lexicon[known]
            threshold = threshold_for(inner[safe], positive[known][safe], wanted)
            probability[name][held] = fitted(features[known], positive[known], lines).probability(features[held])
            chosen[name][held] = (probability[name][held] >= threshold) & ~lexicon[held]
    return Nested(probability, chosen)


def interval(values: Any, threads: npt.NDArray[Any]) -> tuple[float, float]:
    """95 % of `values(rows)` over draws of threads with replacement."""
    groups = [np.flatnonzero(threads == thread) for thread in np.unique(threads)]
    chance = np.random.default_rng(0)
    drawn = [
        values(np.concatenate([groups[n] for n in chance.integers(len(groups), size=len(groups))]))
        for _ in range(DRAWS)
    ]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def said(probability: Floats, chosen: Bools, positive: Bools, threads: npt.NDArray[Any]) -> str:
    figures = {
        "average precision": lambda rows: average_precision_score(positive[rows], probability[rows]),
        "precision": lambda rows: (chosen & positive)[rows].sum() / max(1, chosen[rows].sum()),
        "recall": lambda rows: (chosen & positive)[rows].sum() / max(1, positive[rows].sum()),
    }
    everything = np.arange(len(positive))
    parts = []
    for name, value in figures.items():
        low, high = interval(value, threads)
        parts.append(f"{name} {value(everything):.3f} ({low:.3f} to {high:.3f})")
    return ", ".join(parts) + f"; chosen {chosen.sum()} of {len(chosen)}"


def flags(flagged: Bools, rows: Rows) -> str:
    return f"{(flagged & rows.unsafe).sum()} of {rows.unsafe.sum()}, and {(flagged & ~rows.unsafe).sum()} others"


def report(rows: Rows, probability: dict[str, Floats], chosen: dict[str, Bools]) -> None:
    threads, strata = rows.frame["thread"].to_numpy(), rows.frame["stratum"].to_numpy()
    for name in WANTED:
        positive = rows.voice(name)
        print(f"  {name}: {said(probability[name], chosen[name], positive, threads)}")
        print(f"    unsafe among the chosen: {(chosen[name] & rows.unsafe).sum()}")
        for stratum in np.unique(strata):
            taken, there = chosen[name] & (strata == stratum), positive & (strata == stratum)
            print(f"    {stratum}: {(taken & positive).sum()} right of {taken.sum()} chosen, {there.sum()} there")


def first_stage(rows: Rows, voices: Voices, kept: dict[str, Bools]) -> None:
    """What the cheap first stage rules out of what the second chooses, by the share of random rows that it passes on;
    its weights are of the other folds, too."""
    questions, answers = rows.frame["question"].to_list(), rows.frame["answer"].to_list()
    features, threads = voices.static_features(questions, answers), rows.frame["thread"].to_numpy()
    random = (rows.frame["stratum"] == "random").to_numpy()
    for name, chosen in kept.items():
        cheap = unseen(features, rows.voice(name), threads, of_lines(voices, name, static=True))
        lost = {share: cheap[chosen] < np.quantile(cheap[random], 1 - share) for share in (0.02, 0.05, 0.1, 0.15, 0.3)}
        shares = ", ".join(f"{share:.0%}: {rows.mean():.0%}" for share, rows in lost.items())
        print(f"  {name}, lost of {chosen.sum()} chosen, by the share passed on: {shares}")


def package(rows: Rows, voices: Voices, features: Floats, lexicon: Bools, found: Nested) -> None:
    """Weights of all rows and lines, with the thresholds that the unseen probabilities give."""
    static = voices.static_features(rows.frame["question"].to_list(), rows.frame["answer"].to_list())
    weights: dict[str, Weights] = {}
    first: dict[str, Weights] = {}
    for name in voices.personas:
        positive = rows.voice(name)
        weights[name] = fitted(features, positive, of_lines(voices, name))
        if name in WANTED:
            threshold = threshold_for(found.probability[name][~lexicon], positive[~lexicon], WANTED[name])
            weights[name] = replace(weights[name], threshold=threshold)
        first[name] = fitted(static, positive, of_lines(voices, name, static=True))
    ids = {name: part["line"].to_list() for (name,), part in rows.frame.group_by("set", maintain_order=True)}
    write_packaged(PACKAGED_WEIGHTS, voices, weights, first, ids)


def plot(rows: Rows, found: Nested, target: Path) -> None:
    from matplotlib.figure import Figure
    from sklearn.metrics import precision_recall_curve

    figure = Figure(figsize=(8, 3.4), dpi=110, layout="constrained")
    threads = rows.frame["thread"].to_numpy()
    for axes, name in zip(figure.subplots(1, 2), WANTED, strict=True):
        grid = np.linspace(0.01, 1, 60)

        def curve(part: Any, name: str = name, grid: Floats = grid) -> Floats:
            precision, recall, _ = precision_recall_curve(rows.voice(name)[part], found.probability[name][part])
            return np.interp(grid, recall[::-1], precision[::-1])

        groups = [np.flatnonzero(threads == thread) for thread in np.unique(threads)]
        chance = np.random.default_rng(0)
        drawn = [
            curve(np.concatenate([groups[n] for n in chance.integers(len(groups), size=len(groups))]))
            for _ in range(200)
        ]
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
        axes.fill_between(grid, low, high, alpha=0.2, color="#2563eb")
        axes.plot(grid, curve(np.arange(len(threads))), color="#2563eb")
        axes.set(title=name, xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1))
    figure.savefig(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("home", type=Path)
    parser.add_argument("--labels", type=Path, default=real_data().parent / "labels")
    parser.add_argument("--of", default="forum_posts.jsonl.gz")
    parser.add_argument("--package", action="store_true")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    start = time.monotonic()
    rows = read_rows(options.home, options.labels, options.of)
    print("true parents")
    parents(rows)
    personas, settings = load_personas(PACKAGED), Settings(home=options.home, profile="own")
    vectors = Vectors(settings.voice_encoder, settings.models_dir, settings.vectors_dir)
    voices = Voices(personas, vectors, weights=None)
    questions, answers = rows.frame["question"].to_list(), rows.frame["answer"].to_list()
    kinds = rows.frame.select(unsafe_kinds("question", "answer", load_unsafe(PACKAGED))).to_series()
    lexicon = (kinds.list.len() > 0).to_numpy()
    print(f"unsafe by lexicon: {flags(lexicon, rows)}")
    print("from the example lines alone")
    features = voices.features(questions, answers)
    alone = {name: voices.fitted[name].probability(features) for name in WANTED}
    report(rows, alone, {name: (alone[name] >= voices.threshold(name)) & ~lexicon for name in WANTED})
    voices.centre = voices.centre_of(questions, answers)  # of what the weights will meet
    features = voices.features(questions, answers)
    print(f"with labels, nested, {FOLDS} folds by thread")
    found = nested(rows, voices, features, lexicon)
    report(rows, found.probability, found.chosen)
    print("first stage")
    first_stage(rows, voices, found.chosen)
    if options.plot:
        plot(rows, found, options.plot)
    if options.package:
        package(rows, voices, features, lexicon, found)
    print(f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
