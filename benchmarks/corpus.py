"""Speed claims of the corpus room, one run on one input: CPU-seconds of this process or of the peer's.

    python benchmarks/corpus.py [DUMP.jsonl.gz] [--rows N]    # by default the real corpus

Peers run in their own environments (benchmarks/peers.sh, corpus_peers.py); an absent one is skipped with its reason.
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
from typing import Any

os.environ.setdefault("POLARS_MAX_THREADS", "1")  # CPU-seconds, not wall: threads would only add their overhead

import orjson
import polars as pl
from corpus_growth import FRESH, measured, read
from real_data import real_data

from persona_dagster.config.sources import load_sources
from persona_dagster.corpus import setjoin
from persona_dagster.corpus.clean_file import clean_file
from persona_dagster.corpus.dedup import normalised
from persona_dagster.corpus.funnel import RuleTrace
from persona_dagster.corpus.rule_engine import one_pass
from persona_dagster.corpus.rules import rules_for

HERE = Path(__file__).parent
PEERS = HERE.parent / ".bench-venvs"
RULES = rules_for("ptt", "post")


def peer(task: str, name: str, *paths: Path) -> dict[str, Any] | None:
    """What a peer's own interpreter says of its run; None, with the reason printed, where it has none."""
    if not (PEERS / name / "ok").exists():
        reason = PEERS / f"{name}.skipped"
        why = reason.read_text(encoding="utf-8").strip() if reason.exists() else "run benchmarks/peers.sh"
        print(f"  {name:<15} skipped: {why}")
        return None
    command: list[str | Path] = [PEERS / name / "bin" / "python", HERE / "corpus_peers.py", task, name, *paths]
    # Its own home: data-juicer makes folders there when it is imported.
    with tempfile.TemporaryDirectory() as home:
        quiet = {"HOME": home, "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        run = subprocess.run(command, capture_output=True, text=True, check=False, env=quiet)
    if run.returncode:
        print(f"  {name:<15} skipped: {(run.stderr.strip().splitlines() or ['it failed'])[-1]}")
        return None
    return json.loads(run.stdout.strip().splitlines()[-1])


def cleaning(texts: list[str], folder: Path) -> None:
    """JSON lines in, JSON lines out, the same rules once; ours and the script trace every rule, the peers none."""
    source, target = folder / "in.jsonl", folder / "out.jsonl"
    source.write_bytes(b"".join(orjson.dumps({"id": str(n), "text": text}) + b"\n" for n, text in enumerate(texts)))
    megabytes = source.stat().st_size / 1e6

    start = time.process_time()
    frame = pl.read_ndjson(source, schema={"id": pl.String, "text": pl.String})
    frame.with_columns(one_pass(frame["text"], RULES, RuleTrace())).write_ndjson(target)
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
    wanted = pl.read_ndjson(target)["text"]
    same = wanted.equals(pl.read_ndjson(folder / "re.jsonl")["text"])
    print(f"cleaning, {len(RULES)} rules, {len(texts):,} rows, {megabytes:.0f} MB")
    print(f"  ours, traced    {ours:6.2f} CPU-s  {megabytes / ours:6.1f} MB/CPU-s")
    report = f"{megabytes / script:6.1f} MB/CPU-s  ours is {script / ours:.1f}x  outputs equal: {same}"
    print(f"  json+re, traced {script:6.2f} CPU-s  {report}")

    rules = folder / "rules.json"
    rules.write_bytes(orjson.dumps([
        {"pattern": rule.python.pattern, "multiline": "(?m" in rule.pattern, "replace": rule.python_replace,
         "table": rule.table}
        for rule in RULES
    ]))  # fmt: skip
    for name in ("datatrove", "data-juicer"):
        if result := peer("clean", name, source, folder / name, rules):
            written = pl.read_ndjson(folder / name / "out.jsonl")
            theirs = dict(written.select("id", "text").iter_rows())  # datatrove leaves rows without text out
            differ = sum(theirs.get(str(n)) not in (text, None) for n, text in enumerate(wanted))
            seconds = result["seconds"]
            report = f"{megabytes / seconds:6.1f} MB/CPU-s  ours is {seconds / ours:.1f}x  rows that differ: {differ}"
            print(f"  {name:<15} {seconds:6.2f} CPU-s  {report}")


def near_duplicates(texts: list[str], folder: Path) -> None:
    """Posts per CPU-second from texts to pairs, and the recall of the peers against the exact pairs."""
    start = time.process_time()
    left, right, jaccard = setjoin.similar_pairs(pl.Series(texts), 0.7)
    ours = time.process_time() - start
    exact = {(int(a), int(b)): float(j) for a, b, j in zip(left, right, jaccard, strict=True)}
    mean = sum(map(len, texts)) / len(texts)
    print(f"near duplicates, {len(texts):,} distinct posts of {mean:.0f} characters, {len(exact):,} pairs at J >= 0.7")
    print(f"  ours            {ours:6.2f} CPU-s  {len(texts) / ours:9,.0f} posts/CPU-s  recall 1, precision 1 (tests)")
    listed = folder / "texts.json"
    listed.write_bytes(orjson.dumps(texts))
    border = {pair for pair, j in exact.items() if j < 0.8}
    for name in ("datasketch", "gaoya", "rensa"):
        if result := peer("near", name, listed):
            pairs = {tuple(pair) for pair in result["pairs"]}
            found, low = pairs & exact.keys(), pairs & border
            report = (
                f"recall {len(found) / len(exact):.3f}, in 0.7-0.8 {len(low) / max(len(border), 1):.3f}, "
                f"precision {len(found) / max(len(pairs), 1):.3f}; ours is {result['seconds'] / ours:.1f}x"
            )
            speed = len(texts) / result["seconds"]
            print(f"  {name:<15} {result['seconds']:6.2f} CPU-s  {speed:9,.0f} posts/CPU-s  {report}")


def one_per_cent(dump: Path, folder: Path) -> None:
    """End to end: the whole dump cleaned, filtered and compared, and what its hundredth row costs as news."""
    news = folder / "news.jsonl"
    with gzip.open(dump) as lines, news.open("wb") as out:
        out.writelines(line for number, line in enumerate(lines) if number % FRESH == 0)
    sources, seconds = load_sources(folder, "sample"), []
    for source in (dump, news):
        start = time.process_time()
        clean_file(source, folder / f"clean-{source.stem}.jsonl", sources)
        seconds.append(time.process_time() - start)
    frame = read(folder / f"clean-{dump.stem}.jsonl")
    whole, _ = measured(frame)
    measured(frame.filter(pl.int_range(pl.len()) % FRESH != 0), folder / "index")
    more, _ = measured(frame, folder / "index")
    print(f"end to end, {len(frame):,} rows; 1 % of them new, on a stored index")
    for name, cleaning, comparing in (("all rows", seconds[0], whole), ("1 % new", seconds[1], more)):
        both = f"clean {cleaning:6.2f} + compare {comparing:5.2f} = {cleaning + comparing:6.2f} CPU-s"
        share = (cleaning + comparing) / (seconds[0] + whole)
        print(f"  {name:<9} {both}  {share:.1%}, comparing alone {comparing / whole:.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dump", type=Path, nargs="?")
    parser.add_argument("--rows", type=int, default=60_000, help="rows for cleaning, and posts for near duplicates")
    arguments = parser.parse_args()
    dump = arguments.dump or real_data("corpus", "forum_posts.jsonl.gz")
    with gzip.open(dump) as lines:
        rows = [orjson.loads(line)["text"] or "" for line in lines]
    chosen = random.Random(1).sample(rows, min(arguments.rows, len(rows)))
    print(time.strftime("%Y-%m-%d"), Path(sys.argv[0]).name, f"--rows {len(chosen)} load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        cleaning(chosen, Path(name))
        texts = pl.DataFrame({"text": chosen}).select(normalised(pl.col("text")))["text"].unique(maintain_order=True)
        near_duplicates([text for text in texts if 5 <= len(text) <= 400], Path(name))
        one_per_cent(dump, Path(name))
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
