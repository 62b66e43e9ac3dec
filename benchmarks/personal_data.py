"""What of people is left in real rows after `persona clean`, counted by patterns that share nothing with the detectors.

`python benchmarks/personal_data.py [SEED] [--show]`: 60,000 rows drawn by the seed; `--show` prints what was found, to
be judged by eye (a shop's number or a part number is found as well).
"""

from __future__ import annotations

import gzip
import random
import re
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson
from real_data import real_data

from persona_dagster.config.sources import load_sources
from persona_dagster.corpus.clean_file import clean_file

ROWS = 60_000
EDGE, END = r"(?<![0-9A-Za-z_/.=%-])", r"(?![0-9A-Za-z_])"
LEFT = {
    "e-mail": r"[\w.+-]+\s?[@＠]\s?[\w-]+(?:\s?\.\s?[a-z]{2,10})+",
    "mobile": rf"{EDGE}(?:\+?886[ -]?|0)9[0-9]{{2}}[ -]?[0-9]{{3}}[ -]?[0-9]{{3}}{END}",
    "landline": rf"{EDGE}\(?0[2-8][0-9]?\)?[ -][0-9]{{3,4}}[ -]?[0-9]{{4}}{END}",
    "national id": rf"{EDGE}[A-Z][12][0-9]{{8}}{END}",
    "messenger": r"(?:line|賴|微信|wechat|telegram|tg|discord|dc)\s?(?:id|帳號)?\s?[:：]\s?@?[a-z0-9][a-z0-9._-]{3,}",
    "handle": r"(?:ig|instagram|fb|臉書|twitter|threads|推特)\s?(?:id|帳號)?\s?[:：]\s?@?[a-z0-9][a-z0-9._-]{3,}",
    "profile": r"(?:line\.me/ti/p/|t\.me/|wa\.me/|instagram\.com/|facebook\.com/(?:profile\.php\?id=)?)@?\w[\w.~-]{4,}",
    "account": r"(?:帳號|帳戶)[^0-9\n]{0,6}[0-9][0-9 -]{9,16}[0-9]",
    "card": rf"{EDGE}[3-6][0-9]{{3}}[ -][0-9]{{4}}[ -][0-9]{{4}}[ -][0-9]{{4}}{END}",
    "passport": r"護照[^0-9\n]{0,6}[0-9]{9}",
    "plate": r"車[牌號][^A-Z0-9\n]{0,5}(?:[A-Z]{2,3}-?[0-9]{4}|[0-9]{4}-?[A-Z0-9]{2})",
    "student": r"學號[^0-9A-Za-z\n]{0,5}[A-Za-z]?[0-9]{7,10}",
}
PATTERN = re.compile("|".join(f"(?P<k{at}>{pattern})" for at, pattern in enumerate(LEFT.values())), re.IGNORECASE)


def main(seed: int, show: bool) -> None:
    with gzip.open(real_data("corpus", "forum_posts.jsonl.gz")) as file:
        lines = file.read().splitlines()
    drawn = random.Random(seed).sample(lines, ROWS)
    before = sum(len([*PATTERN.finditer(orjson.loads(line)["text"])]) for line in drawn)
    with TemporaryDirectory() as folder:
        (source := Path(folder) / "in.jsonl").write_bytes(b"\n".join(drawn))
        started = time.monotonic()
        clean_file(source, out := Path(folder) / "out.jsonl", load_sources(Path(folder), "sample"))
        seconds = time.monotonic() - started
        rows = [row for row in map(orjson.loads, out.read_bytes().splitlines()) if row["usable"]]
    found: Counter[str] = Counter()
    for row in rows:
        text = f"{row['title'] or ''}\n{row['text']}"
        for hit in PATTERN.finditer(text):
            kind = [*LEFT][int(next(name for name, value in hit.groupdict().items() if value)[1:])]
            found[kind] += 1
            if show:
                print(kind, repr(text[max(0, hit.start() - 40) : hit.end() + 20]))
    print(
        f"{ROWS:,} rows, seed {seed}, cleaned in {seconds:.0f} s: {len(rows):,} usable; {before:,} before, left {found}"
    )


if __name__ == "__main__":
    main(next((int(word) for word in sys.argv[1:] if word.isdigit()), 23), "--show" in sys.argv)
