"""The mix of 1,000,000 rows to JSONL, ours against `datasets.interleave_datasets` + `to_json`, in one run.

Both read the same Parquet of dialogues (three voices, 8 : 3 : 1) and write about a million train rows; each in its
own process, whose peak memory and CPU time are the kernel's. `python benchmarks/mix.py [rows]`
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl

SHARES = {"assistant": 1, "mentor": 8, "mouthpiece": 3}
CHUNK = 100_000  # dialogues made at a time
VOCABULARY = "分手難過抱抱慢慢來模型訓練資料主管同事傻眼離譜真的好想知道為什麼今天又下雨了我們可以一起吃飯嗎"


def make_input(rows: int, folder: Path) -> None:
    """Dialogues whose words differ from row to row, at the lengths of forum posts (about 60 and 40 characters)."""
    import pyarrow.parquet as pq

    total = sum(SHARES.values())
    whole: pq.ParquetWriter | None = None
    for persona, share in SHARES.items():
        part: pq.ParquetWriter | None = None
        size = rows * share // total
        for start in range(0, size, CHUNK):
            frame = chunk(persona, range(start, min(start + CHUNK, size)))
            table, few = frame.to_arrow(), frame.select("pair_id", "persona", "messages").to_arrow()
            whole = whole or pq.ParquetWriter(folder / "dialogues.parquet", table.schema)
            part = part or pq.ParquetWriter(folder / f"{persona}.parquet", few.schema)
            whole.write_table(table)
            part.write_table(few)
        assert part is not None
        part.close()
    assert whole is not None
    whole.close()


def chunk(persona: str, numbers: range) -> pl.DataFrame:
    from persona_dagster.digest import keyed_hash, text_digest
    from persona_dagster.records import DIALOGUE_SCHEMA

    names = [f"{persona}-{i}" for i in numbers]
    texts = []
    for name in names:
        seed = keyed_hash("text", name)
        start = seed % len(VOCABULARY)
        words = (VOCABULARY * 4)[start : start + 60 + seed % 40]
        texts.append((f"{words}{seed:x}", f"{words[::-1][:40]}{seed % 99991}"))
    frame = pl.DataFrame(
        {
            "pair_id": [text_digest(name) for name in names],
            "thread_id": names,
            "question": [question for question, _ in texts],
            "answer": [answer for _, answer in texts],
        }
    )
    turns = [
        pl.struct(role=pl.lit(role), content=pl.col(text))
        for role, text in (("user", "question"), ("assistant", "answer"))
    ]
    frame = frame.with_columns(
        builder=pl.lit("top_comments"),
        persona=pl.lit(persona),
        source=pl.lit("dcard"),
        board=pl.lit("mood"),
        doc_ids=pl.concat_list("thread_id"),
        urls=pl.concat_list(pl.format("https://example.test/{}", "thread_id")),
        answer_author=pl.lit(None, pl.String),
        messages=pl.concat_list(turns),
        score=pl.lit(1.0),
    ).with_columns(messages_raw="messages")
    return frame.select(pl.col(name).cast(dtype) for name, dtype in DIALOGUE_SCHEMA.items())


def ours(rows: int, folder: Path) -> int:
    from persona_dagster.config.loading import PACKAGED
    from persona_dagster.config.personas import load_personas
    from persona_dagster.config.recipes import load_recipe
    from persona_dagster.conversation.mix import write_mix

    dialogues = pl.scan_parquet(folder / "dialogues.parquet")
    split = dialogues.select("pair_id", component="pair_id", split=pl.lit("train")).collect()
    recipe = load_recipe("persona_v2", PACKAGED, "live", "gpu_12gb")
    mix = recipe.mix.model_copy(update={"replay_share": 0.0, "max_train_rows": rows})
    recipe = recipe.model_copy(update={"mix": mix})
    return write_mix(dialogues, split, recipe, load_personas(PACKAGED), folder / "ours").train_rows


def theirs(rows: int, folder: Path) -> int:
    import datasets

    datasets.disable_progress_bars()
    parts = [
        datasets.load_dataset(
            "parquet", data_files=str(folder / f"{name}.parquet"), split="train", cache_dir=str(folder)
        )
        for name in SHARES
    ]
    mixed = datasets.interleave_datasets(
        parts, probabilities=[0.25, 0.4, 0.35], seed=3407, stopping_strategy="all_exhausted"
    ).select(range(rows))
    mixed.to_json(str(folder / "theirs.jsonl"), force_ascii=False)
    return len(mixed)


def peak_mb() -> int:
    """This process's own peak; ru_maxrss would hand down the parent's across exec."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return round(int(status.partition("VmHWM:")[2].split()[0]) / 1024)


def measure(side: str, rows: int, folder: Path) -> dict[str, float]:
    """One side in its own process."""
    command = [sys.executable, __file__, "--side", side, str(rows), str(folder)]
    out = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    return json.loads(out.stdout.splitlines()[-1])


def main() -> None:
    if "--side" in sys.argv:
        side, rows, folder = sys.argv[2:]
        started = time.monotonic()
        written = {"ours": ours, "theirs": theirs}[side](int(rows), Path(folder))
        usage = resource.getrusage(resource.RUSAGE_SELF)
        print(
            json.dumps(
                {
                    "rows": written,
                    "seconds": round(time.monotonic() - started, 1),
                    "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
                    "peak_mb": peak_mb(),
                }
            )
        )
        return
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        make_input(rows, Path(folder))
        results = {}
        for side in ("ours", "theirs"):
            results[side] = measure(side, rows, Path(folder))
            print(side, results[side], flush=True)
    for unit in ("seconds", "cpu_seconds", "peak_mb"):
        print(f"theirs / ours, {unit}: {results['theirs'][unit] / results['ours'][unit]:.2f}")


if __name__ == "__main__":
    main()
