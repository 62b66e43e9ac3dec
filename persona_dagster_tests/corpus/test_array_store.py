"""Arrays in a folder: what is unchanged stays, what is torn is absent, a crash leaves the former ones."""

from __future__ import annotations

import numpy as np
import pytest

from persona_dagster.corpus.array_store import ArrayStore


def stored(folder, version="v") -> dict[str, list[int]]:
    return {name: array.tolist() for name, array in ArrayStore(folder).load(version).items()}


def test_only_what_changed_is_written(tmp_path):
    ArrayStore(tmp_path).save({"a": np.arange(3), "b": np.arange(2), "none": np.empty(0)}, "v")
    store = ArrayStore(tmp_path)
    loaded = store.load("v")
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.npy")}
    store.save({"moved": loaded["a"], "b": loaded["b"] + 1}, "v")
    assert stored(tmp_path) == {"moved": [0, 1, 2], "b": [1, 2]}
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.npy")}
    assert after["1-a.npy"] == before["1-a.npy"] and after.keys() == {"1-a.npy", "2-b.npy"}
    assert stored(tmp_path, "another version") == {}


def test_a_crash_while_writing_leaves_the_former_arrays(tmp_path, monkeypatch):
    ArrayStore(tmp_path).save({"a": np.arange(3), "b": np.arange(2)}, "v")
    store = ArrayStore(tmp_path)
    loaded = store.load("v")
    monkeypatch.setattr(np, "save", lambda file, array: file.write(b"torn") and (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        store.save({"a": loaded["a"] + 1, "b": loaded["b"]}, "v")
    assert stored(tmp_path) == {"a": [0, 1, 2], "b": [0, 1]}


def test_a_torn_or_missing_file_is_no_store(tmp_path):
    ArrayStore(tmp_path).save({"a": np.arange(3)}, "v")
    (tmp_path / "1-a.npy").write_bytes(b"torn")
    assert stored(tmp_path) == {}
    (tmp_path / "1-a.npy").unlink()
    assert stored(tmp_path) == {}
    ArrayStore(tmp_path).save({"a": np.arange(2)}, "v")
    assert stored(tmp_path) == {"a": [0, 1]}
