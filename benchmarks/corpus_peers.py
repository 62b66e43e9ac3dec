"""The peers' side of benchmarks/corpus.py: run by each peer's own interpreter, it imports nothing of this project.

    python corpus_peers.py near  datasketch|rensa|gaoya        texts.json              (a list of texts)
    python corpus_peers.py clean datatrove|data-juicer         in.jsonl out rules.json

Every peer runs on one thread, in its quickest form, and counts the CPU-seconds after its imports. Prints JSON.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.update(RAYON_NUM_THREADS="1", OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", HF_DATASETS_DISABLE_PROGRESS_BARS="1")
Pairs = set[tuple[int, int]]
THRESHOLD, PERMUTATIONS = 0.7, 128


def cpu_seconds() -> float:
    """Of this process and of those that it started."""
    each = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in each)


def grams(text: str) -> set[str]:
    return {text[i : i + 3] for i in range(len(text) - 2)}


def datasketch(texts: list[str]) -> Pairs:
    from datasketch import MinHash, MinHashLSH

    lsh = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
    pairs: Pairs = set()
    for number, text in enumerate(texts):
        sketch = MinHash(num_perm=PERMUTATIONS)
        sketch.update_batch([gram.encode() for gram in grams(text)])
        pairs.update((other, number) for other in lsh.query(sketch))
        lsh.insert(number, sketch)
    return pairs


def rensa(texts: list[str]) -> Pairs:
    from rensa import RMinHash, RMinHashLSH

    lsh = RMinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS, num_bands=32)
    pairs: Pairs = set()
    sketches: list[Any] = []
    for start in range(0, len(texts), 10_000):
        some = [list(grams(text)) for text in texts[start : start + 10_000]]
        sketches += RMinHash.from_token_sets(some, PERMUTATIONS, 42)
    for number, sketch in enumerate(sketches):
        near = (other for other in lsh.query(sketch) if sketches[other].jaccard(sketch) >= THRESHOLD)
        pairs.update((other, number) for other in near)
        lsh.insert(number, sketch)
    return pairs


def gaoya(texts: list[str]) -> Pairs:
    from gaoya.minhash import MinHashStringIndex

    index = MinHashStringIndex(32, THRESHOLD, 32, 4, None, "char", False, (3, 3), "vec")
    index.par_bulk_insert_docs(list(range(len(texts))), texts)
    found = index.par_bulk_query(texts)
    return {(min(a, b), max(a, b)) for a, others in enumerate(found) for b in others if a != b}


def _rules(path: str) -> list[dict[str, Any]]:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def _fold(table: dict[int, str], text: str) -> str:
    return text.translate(table)


def datatrove(source: str, target: str, rules_path: str) -> float:
    import re

    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.formatters.base import BaseFormatter
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter

    steps: list[Callable[[str], str]] = []
    for rule in _rules(rules_path):
        if rule["table"]:
            steps.append(partial(_fold, str.maketrans(rule["table"])))
        else:
            pattern = re.compile(rule["pattern"], re.MULTILINE if rule["multiline"] else 0)
            steps.append(partial(pattern.sub, rule["replace"]))

    class Rules(BaseFormatter):
        name = "rules"

        def format(self, text: str) -> str:
            for step in steps:
                text = step(text)
            return text

    with tempfile.TemporaryDirectory() as logs:
        start = cpu_seconds()
        LocalPipelineExecutor(
            [
                JsonlReader(str(Path(source).parent), glob_pattern=Path(source).name, id_key="id"),
                Rules(),
                JsonlWriter(target, output_filename="out.jsonl", compression=None),
            ],
            tasks=1, workers=1, logging_dir=logs,
        ).run()  # fmt: skip
        return cpu_seconds() - start


ONE_PROCESS = {"num_proc": 1, "auto_op_parallelism": False}


def data_juicer(source: str, target: str, rules_path: str) -> float:
    from data_juicer.core.data import NestedDataset
    from data_juicer.ops.base_op import Mapper
    from data_juicer.ops.mapper.replace_content_mapper import ReplaceContentMapper
    from datasets import disable_caching, load_dataset

    class Fold(Mapper):
        _batched_op = True
        _name = "fold"

        def __init__(self, table: dict[str, str]) -> None:
            super().__init__(**ONE_PROCESS)
            self.table = str.maketrans(table)

        def process_batched(self, samples: dict[str, list[str]]) -> dict[str, list[str]]:
            samples["text"] = [text.translate(self.table) for text in samples["text"]]
            return samples

    operators: list[Mapper] = []
    group: list[dict[str, Any]] = []

    def close() -> None:
        if group:
            patterns = [("(?m)" if rule["multiline"] else "") + rule["pattern"] for rule in group]
            replacements = [rule["replace"] for rule in group]
            operators.append(ReplaceContentMapper(pattern=patterns, repl=replacements, **ONE_PROCESS))
            group.clear()

    for rule in _rules(rules_path):
        if rule["table"]:
            close()
            operators.append(Fold(rule["table"]))
        else:
            group.append(rule)
    close()
    disable_caching()
    Path(target).mkdir(parents=True, exist_ok=True)
    NestedDataset.from_list([{"text": ""}]).process(operators, open_monitor=False)  # it imports torch when first used
    with tempfile.TemporaryDirectory() as cache:
        start = cpu_seconds()
        dataset = NestedDataset(load_dataset("json", data_files=source, split="train", cache_dir=cache))
        dataset = dataset.process(operators, open_monitor=False)
        dataset.to_json(f"{target}/out.jsonl", force_ascii=False, num_proc=1)
        return cpu_seconds() - start


def main() -> None:
    task, peer, *paths = sys.argv[1:]
    if task == "clean":
        seconds = {"datatrove": datatrove, "data-juicer": data_juicer}[peer](*paths)
        print(json.dumps({"seconds": seconds}))
        return
    texts = json.loads(Path(paths[0]).read_text(encoding="utf-8"))
    __import__(peer)
    start = cpu_seconds()
    pairs = {"datasketch": datasketch, "rensa": rensa, "gaoya": gaoya}[peer](texts)
    print(json.dumps({"seconds": cpu_seconds() - start, "pairs": sorted(pairs)}))


if __name__ == "__main__":
    main()
