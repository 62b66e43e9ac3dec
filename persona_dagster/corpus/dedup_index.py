"""What the comparison of texts remembers between runs, so that a new row costs its own comparison and no more.

No text: hashes of the texts seen, the node of each (a distinct normalised text), the grams under which a node can be
found, the pairs found. A cache: where it is absent, torn or of another version, it is made anew from the corpus.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

from persona_dagster.corpus import setjoin
from persona_dagster.digest import sha256, text_digest

THRESHOLD = 0.7
SHORTEST = 5  # letters; below, peers call 推, 噓 and 笑死 copies of each other
# With more new texts than this share a whole run costs about the same, and orders the grams by today's frequencies.
FRESH_SHARE = 0.2

TEXTS = pl.Schema({
    "one": pl.UInt64, "two": pl.UInt64,  # Polars' hashes of the text: stable within a version of Polars, see version()
    "node": pl.UInt32,
    "key": pl.Binary,  # 128-bit hash of the normalised text
    "letters": pl.UInt32,
    "grams": pl.UInt32,  # distinct 3-grams
})  # fmt: skip
PAIRS = pl.Schema({"a": pl.UInt32, "b": pl.UInt32, "jaccard": pl.Float64})
RANKS = pl.Schema({"rank": pl.UInt32})  # of the buckets of grams, see setjoin
POSTINGS = pl.Schema({"key": pl.UInt64, "row": pl.UInt32, "place": pl.UInt16})


def normalised(column: pl.Expr) -> pl.Expr:
    """What is compared: letters and digits, compatibility forms and case folded, within the BMP."""
    return (
        column.str.normalize("NFKC")
        .str.to_lowercase()
        .str.replace_all(r"[^\p{L}\p{N}]+", "")
        .str.replace_all(r"[\U00010000-\U0010FFFF]", "\ue000")
    )


def text_key(text: str) -> bytes:
    """The stable 128-bit hash of a normalised text."""
    return xxhash.xxh3_128_digest(text.encode())


def hashes(column: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
    """128 bits that tell texts apart within one version of Polars: 18 times faster than a stable hash from Python."""
    return column.hash(1).alias("one"), pl.concat_str(pl.lit("#"), column).hash(2).alias("two")


def version() -> str:
    """Hash of all that decides what an index means."""
    here = Path(__file__).parent
    code = (sha256((here / name).read_bytes()) for name in ("setjoin.py", "dedup_index.py"))
    return text_digest(pl.__version__, *code)[:16]


def _sets(norms: pl.Series, ranks: pl.DataFrame) -> setjoin.GramSets:
    return setjoin.gram_sets(norms.to_list(), ranks["rank"].to_numpy())


def differ_beyond_digits(left: pl.Series, right: pl.Series) -> np.ndarray:
    """False where two texts are the same but for their numbers: two days of a diary are no copies."""
    shapes = [texts.str.replace_all(r"\p{N}+", "0") for texts in (left, right)]
    return (shapes[0] != shapes[1]).to_numpy()


PARTS = ("texts", "pairs", "postings", "ranks")


@dataclass
class DedupIndex:
    """Texts compared so far. `take_in` makes it that of a corpus, `save` keeps it."""

    texts: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=TEXTS))
    pairs: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=PAIRS))
    postings: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=POSTINGS))
    ranks: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=RANKS))
    once: bool = False  # nothing will be looked up later, so no postings are made

    @classmethod
    def load(cls, folder: Path) -> DedupIndex:
        """The index kept in `folder`; an empty one where there is none that can be read."""
        try:
            parts = {name: pl.read_ipc(folder / version() / f"{name}.arrow") for name in PARTS}
            return cls(parts["texts"], parts["pairs"], parts["postings"], parts["ranks"])
        except (OSError, pl.exceptions.PolarsError):
            return cls()

    def save(self, folder: Path) -> None:
        """Written beside and swapped in as one folder, since its parts only fit each other."""
        target, fresh = folder / version(), folder / f".{os.getpid()}.tmp"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        for name in PARTS:
            with (fresh / f"{name}.arrow").open("wb") as file:
                getattr(self, name).write_ipc(file)  # Parquet would take as long as the comparison
                file.flush()
                os.fsync(file.fileno())
        for old in folder.iterdir():
            if old != fresh:
                shutil.rmtree(old)
        fresh.rename(target)

    def take_in(self, rows: pl.DataFrame, texts: pl.Series) -> pl.DataFrame:
        """Rows (`one`, `two` and more, in the order of `texts`) with `node` and `letters`; all pairs of nodes compared.

        Nodes that no row has any more are forgotten, with all that was known of them.
        """
        rows = rows.with_row_index("row")
        found = rows.join(self.texts.select("one", "two", "node", "letters"), on=["one", "two"], how="left")
        new = found.filter(pl.col("node").is_null())
        if len(new) > FRESH_SHARE * len(rows):
            new, self.ranks = found, self.ranks.clear()
        found = found.filter(pl.col("node").is_not_null()) if len(new) < len(rows) else found.clear()
        self._forget(found["node"].to_numpy())
        if not len(new):
            return found
        new = new.drop("node", "letters")
        self._compare(new.unique(["one", "two"], keep="first", maintain_order=True), found, texts)
        return pl.concat([found, new.join(self.texts.select("one", "two", "node", "letters"), on=["one", "two"])])

    def _forget(self, living: NDArray[np.uint32]) -> None:
        live = np.zeros(len(self._sizes()), np.bool_)
        live[living] = True
        stays = live[self.texts["node"].to_numpy()]
        if not stays.all():
            self.texts = self.texts.filter(stays)
            self.pairs = self.pairs.filter(live[self.pairs["a"].to_numpy()] & live[self.pairs["b"].to_numpy()])
            self.postings = self.postings.filter(live[self.postings["row"].to_numpy()])

    def _sizes(self) -> setjoin.I64:
        """Distinct grams by node."""
        node = self.texts["node"].to_numpy()
        sizes = np.zeros(int(node.max()) + 1 if len(node) else 0, np.int64)
        sizes[node] = self.texts["grams"].to_numpy()
        return sizes

    def _compare(self, new: pl.DataFrame, known: pl.DataFrame, texts: pl.Series) -> None:
        """Texts never seen become known; who among them is alike, or like a known one, becomes a pair."""
        norms = texts.gather(new["row"]).to_frame("text").select(normalised(pl.col("text")).alias("norm"))["norm"]
        new = new.with_columns(norms, pl.Series("key", [text_key(norm) for norm in norms], dtype=pl.Binary))
        first = len(self._sizes())
        stored = self.texts.join(new, on="key", how="semi").unique("key").select("key", "node", "letters", "grams")
        fresh = (
            new.unique("key", keep="first", maintain_order=True)
            .join(stored, on="key", how="anti", maintain_order="left")
            .with_row_index("node", offset=first)
            .with_columns(pl.col("norm").str.len_chars().alias("letters"))
        )
        joined = fresh["norm"].set(fresh["letters"] < SHORTEST, "")
        if not len(self.ranks):
            self.ranks = pl.DataFrame({"rank": setjoin.bucket_ranks(joined.to_list())}, schema=RANKS)
        sets = _sets(joined, self.ranks)
        fresh = fresh.with_columns(pl.Series("grams", sets.sizes, dtype=pl.UInt32))
        nodes = pl.concat([stored, fresh.select(stored.columns)])
        self.texts = pl.concat([self.texts, new.join(nodes, on="key").select(list(TEXTS))])

        left, right, jaccard = setjoin.similar_pairs(sets, THRESHOLD)
        named = fresh["node"]
        if not self.once:
            before = setjoin.Postings(*(self.postings[name].to_numpy() for name in POSTINGS))
            added = setjoin.Postings.of(sets, named.to_numpy(), THRESHOLD)
            merged = before.merged(added)
            self.postings = pl.DataFrame([merged.keys, merged.rows, merged.places], schema=POSTINGS)
            theirs, ours = before.partners(added, THRESHOLD)
            partners, which = np.unique(theirs, return_inverse=True)
            norms = self._norms(partners, known, texts)
            both = sets.followed_by(_sets(norms, self.ranks))
            across = setjoin.confirmed(both, ours - first, len(fresh) + which, THRESHOLD)
            left, right, jaccard = (np.concatenate(pair) for pair in zip((left, right, jaccard), across, strict=True))
            joined, named = joined.append(norms), named.append(pl.Series(partners, dtype=pl.UInt32))
        pairs = pl.DataFrame({"a": named.gather(left), "b": named.gather(right), "jaccard": jaccard}, schema=PAIRS)
        self.pairs = self.pairs.extend(pairs.filter(differ_beyond_digits(joined.gather(left), joined.gather(right))))

    def _norms(self, nodes: setjoin.I64, known: pl.DataFrame, texts: pl.Series) -> pl.Series:
        """The normalised texts of nodes that stand in the corpus, in the order of the nodes."""
        wanted = np.zeros(len(self._sizes()), np.bool_)
        wanted[nodes] = True
        first = known.filter(wanted[known["node"].to_numpy()]).unique("node").sort("node")
        return texts.gather(first["row"]).to_frame("text").select(normalised(pl.col("text")).alias("norm"))["norm"]
