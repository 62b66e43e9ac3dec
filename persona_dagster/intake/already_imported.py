"""Which rows were taken in before: keys and contents of the ledgers, looked up in batches by DuckDB, out of core."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb
import polars as pl

FLUSH = 1 << 14  # rows kept in memory before they join the table
Found = tuple[int, str, int]  # content, file, row
COLUMNS = {"key": pl.UInt64, "content": pl.UInt64, "file": pl.String, "row": pl.Int64}


class SeenRows:
    """Rows that are in the archive: by the 64-bit hash of their key their content's hash, file and row.

    `own`: what the file that is read now gave when it was read before.
    """

    def __init__(self, ledgers: Path, own: str) -> None:
        self._db = duckdb.connect()
        self._db.execute("CREATE TABLE seen (key UBIGINT, content UBIGINT, file VARCHAR, row BIGINT)")
        self._db.execute("CREATE TABLE own (key UBIGINT, content UBIGINT)")
        if any(ledgers.glob("*.parquet")):
            stored, mine = "read_parquet($1) WHERE fate = 'stored'", "(file = $2 OR starts_with(file, $2 || '!'))"
            values = [str(ledgers / "*.parquet"), own]
            self._db.execute(f"INSERT INTO seen SELECT key, content, file, row FROM {stored} AND NOT {mine}", values)
            self._db.execute(f"INSERT INTO own SELECT key, content FROM {stored} AND {mine}", values)
        self._fresh: dict[int, Found] = {}

    def look_up(self, keys: Sequence[int]) -> dict[int, Found]:
        """What is known of these keys, the last taken of each."""
        rows = self._asked(keys, "SELECT key, content, file, row FROM seen SEMI JOIN asked USING (key)")
        found = {key: (content, file, row) for key, content, file, row in rows}
        return found | {key: self._fresh[key] for key in keys if key in self._fresh}

    def stored_before(self, keys: Sequence[int]) -> set[tuple[int, int]]:
        """(key, content) of those that this file gave before: they need not be stored again."""
        return set(self._asked(keys, "SELECT key, content FROM own SEMI JOIN asked USING (key)"))

    def _asked(self, keys: Sequence[int], query: str) -> list[tuple]:
        self._db.register("asked", pl.DataFrame({"key": keys}, {"key": pl.UInt64}).to_arrow())
        return self._db.execute(query).fetchall()

    def add(self, key: int, content: int, file: str, row: int) -> None:
        self._fresh[key] = (content, file, row)
        if len(self._fresh) >= FLUSH:
            columns = list(zip(*self._fresh.values(), strict=True))
            frame = pl.DataFrame(dict(zip(COLUMNS, (list(self._fresh), *columns), strict=True)), COLUMNS)
            self._db.register("fresh", frame.to_arrow())
            self._db.execute("INSERT INTO seen FROM fresh")
            self._fresh = {}

    def close(self) -> None:
        self._db.close()
