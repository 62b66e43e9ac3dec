"""Speed claims of the corpus room, one run on one input: CPU-seconds of this process or of the peer's.

    python benchmarks/corpus.py DUMP.jsonl.gz [--rows N]

Peers run in their own environments (benchmarks/peers.sh); one that is absent is skipped with its reason.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("POLARS_MAX_THREADS", "1")  # CPU-seconds, not wall: threads would only add their overhead

import orjson
import polars as pl

from persona_dagster.corpus import setjoin
from persona_dagster.corpus.dedup import normalised
from persona_dagster.corpus.engine import one_pass
from persona_dagster.corpus.funnel import Trace
from persona_dagster.corpus.rules import rules_for

HERE = Path(__file__).parent
PEERS = HERE.parent / ".bench-venvs"
RULES = rules_for("ptt", "post")

MINHASH = """
import sys, time, json
texts = [line.rstrip("\\n") for line in open(sys.argv[2], encoding="utf-8")]
grams = [{t[i:i+3] for i in range(len(t)-2)} for t in texts]
start = time.process_time()
pairs = set()
if sys.argv[1] == "datasketch":
    from datasketch import MinHash, MinHashLSH
    lsh = MinHashLSH(threshold=0.7, num_perm=128)
    for i, g in enumerate(grams):
        m = MinHash(num_perm=128); m.update_batch([x.encode() for x in g])
        pairs.update((j, i) for j in lsh.query(m)); lsh.insert(i, m)
else:
    from rensa import RMinHash, RMinHashLSH
    lsh = RMinHashLSH(threshold=0.7, num_perm=128, num_bands=32)
    for i, g in enumerate(grams):
        m = RMinHash(num_perm=128, seed=42); m.update(list(g))
        pairs.update((j, i) for j in lsh.query(m)); lsh.insert(i, m)
print(json.dumps({"seconds": time.process_time() - start, "pairs": sorted(pairs)}))
"""


def cleaning(texts: list[str], folder: Path) -> None:
    """JSON lines in, JSON lines out, the same rules once, every rule traced."""
    source, target = folder / "in.jsonl", folder / "out.jsonl"
    source.write_bytes(b"".join(orjson.dumps({"text": text}) + b"\n" for text in texts))
    megabytes = source.stat().st_size / 1e6

    start = time.process_time()
    frame = pl.read_ndjson(source, schema={"text": pl.String})
    frame.with_columns(one_pass(frame["text"], RULES, Trace())).write_ndjson(target)
    ours = time.process_time() - start

    start = time.process_time()
    hits: Counter[str] = Counter()
    removed: Counter[str] = Counter()
    with source.open(encoding="utf-8") as lines, (folder / "re.jsonl").open("w", encoding="utf-8") as out:
        for line in lines:
            row = json.loads(line)
            text = row["text"]
            for rule in RULES:
                after = rule.apply(text)
                if after != text:
                    hits[rule.name] += 1
                    removed[rule.name] += len(text) - len(after)
                    text = after
            row["text"] = text
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    script = time.process_time() - start
    same = pl.read_ndjson(target)["text"].equals(pl.read_ndjson(folder / "re.jsonl")["text"])
    print(f"cleaning, {len(RULES)} rules traced, {len(texts):,} rows, {megabytes:.0f} MB, outputs equal: {same}")
    print(f"  Polars engine   {ours:6.2f} CPU-s  {megabytes / ours:6.1f} MB/CPU-s")
    print(f"  json + re       {script:6.2f} CPU-s  {megabytes / script:6.1f} MB/CPU-s  ours is {script / ours:.1f}x")


def near_duplicates(texts: list[str], folder: Path) -> None:
    """Posts per CPU-second, and the recall of the peers against the exact pairs."""
    start = time.process_time()
    sets = setjoin.gram_sets(texts, setjoin.bucket_ranks(texts))
    left, right, jaccard = setjoin.similar_pairs(sets, 0.7)
    ours = time.process_time() - start
    exact = {(int(a), int(b)): float(j) for a, b, j in zip(left, right, jaccard, strict=True)}
    mean = sum(map(len, texts)) / len(texts)
    print(f"near duplicates, {len(texts):,} distinct posts of {mean:.0f} characters, {len(exact):,} pairs at J >= 0.7")
    print(f"  exact join      {ours:6.2f} CPU-s  {len(texts) / ours:9,.0f} posts/CPU-s  recall 1 (by construction)")
    listed = folder / "texts.txt"
    listed.write_text("\n".join(texts), encoding="utf-8")
    border = {pair for pair, j in exact.items() if j < 0.8}
    for peer in ("datasketch", "rensa"):
        python = PEERS / peer / "bin" / "python"
        if not (PEERS / peer / "ok").exists():
            reason = PEERS / f"{peer}.skipped"
            print(
                f"  {peer:<15} skipped: {reason.read_text().strip() if reason.exists() else 'run benchmarks/peers.sh'}"
            )
            continue
        run = subprocess.run([python, "-c", MINHASH, peer, listed], capture_output=True, text=True, check=False)
        if run.returncode:
            print(f"  {peer:<15} skipped: {run.stderr.strip().splitlines()[-1]}")
            continue
        result = json.loads(run.stdout)
        pairs = {tuple(pair) for pair in result["pairs"]}
        recall, low = len(pairs & exact.keys()) / len(exact), len(pairs & border) / max(len(border), 1)
        speed = len(texts) / result["seconds"]
        print(
            f"  {peer:<15} {result['seconds']:6.2f} CPU-s  {speed:9,.0f} posts/CPU-s  recall {recall:.3f}, in 0.7-0.8 "
            f"{low:.3f}; ours is {result['seconds'] / ours:.1f}x"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dump", type=Path)
    parser.add_argument("--rows", type=int, default=60_000, help="rows for cleaning, and posts for near duplicates")
    arguments = parser.parse_args()
    with gzip.open(arguments.dump) as lines:
        rows = [orjson.loads(line)["text"] or "" for line in lines]
    chosen = random.Random(1).sample(rows, min(arguments.rows, len(rows)))
    print(time.strftime("%Y-%m-%d"), " ".join(sys.argv), f"load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        cleaning(chosen, Path(name))
        texts = pl.DataFrame({"text": chosen}).select(normalised(pl.col("text")))["text"].unique(maintain_order=True)
        near_duplicates([text for text in texts if 5 <= len(text) <= 400], Path(name))
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
