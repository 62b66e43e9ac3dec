"""Learns the tagger of hidden identifiers (corpus/personal_data/tagger.py), and says what it finds.

    python benchmarks/tagger.py [--held t,x,y,za] [--epochs 10] [--real FORUM_POSTS] [--package]

From the lines of persona_dagster_tests/corpus/disguised/*.jsonl, each file by another hand, from the tests' other sets,
and from stretches of real rows in which no pattern finds anything. Of the held files, which are left out, it prints the
share of identifiers that is found, by the patterns alone and with the tagger. With --package the weights are written
to personal_data/tagger.npz. Twenty minutes on two cores.
"""

from __future__ import annotations

import argparse
import gzip
import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import torch
from torch import nn

from persona_dagster.corpus import privacy
from persona_dagster.corpus.personal_data import tagger
from persona_dagster.corpus.personal_data.tagger import AROUND, BIGRAMS, CLASSES, DILATIONS, KINDS, WEIGHTS, Alphabet

REPOSITORY = Path(__file__).resolve().parents[1]
LINES = REPOSITORY / "persona_dagster_tests" / "corpus" / "disguised"
REAL = REPOSITORY.parent / "shared" / "data" / "corpus" / "forum_posts.jsonl.gz"
KIND_OF = {
    "telephone": "PHONE", "email": "EMAIL", "line": "LINE_ID", "account": "CHAT_ID", "address": "ADDRESS",
    "national_id": "ID", "bank": "BANK", "passport": "PASSPORT", "plate": "PLATE", "student_id": "STUDENT_ID",
    "phone": "PHONE", "line_id": "LINE_ID", "messenger": "CHAT_ID", "handle": "CHAT_ID", "ig_fb_id": "CHAT_ID",
    "bank_account": "BANK",
}  # fmt: skip
WIDTH, CHARACTER, CLASS, MOST_KNOWN = 48, 24, 8, 2500
BATCH, LINE_CHARS, SEED = 32, 200, 1
HELD_REAL = 3000  # stretches of real rows that are not learned from, to count what is found in them
KEPT, LOOSER = 0.99, 1.0  # of the lines learned from, what the first stage passes on; nats less for those of others


@dataclass(frozen=True)
class Line:
    text: str
    marks: list[int]  # a kind a character
    spans: list[str]
    kind: str


def read(path: Path) -> list[Line]:
    lines = []
    for row in map(orjson.loads, path.read_bytes().splitlines()):
        kind = KINDS.index(KIND_OF.get(row["kind"], ""))
        marks = [0] * len(row["text"])
        for span in row["spans"]:
            for found in re.finditer(re.escape(span), row["text"]):
                marks[slice(*found.span())] = [kind] * len(span)
                if len(span) < 3:
                    break
        lines.append(Line(row["text"], marks, row["spans"], row["kind"]))
    return lines


def read_others() -> list[Line]:
    """The sets that patterns are tested with: identifiers in plain forms, and look-alikes."""
    from persona_dagster_tests.corpus.test_personal_data import LINES as MARKED_LINES
    from persona_dagster_tests.corpus.test_personal_data import MARKED
    from persona_dagster_tests.corpus.test_pii_labelled import LABELLED

    lines = []
    for kind, personal, text in MARKED_LINES:
        parts = MARKED.split(text)  # what stands between marks, and what is marked, in turn
        own = KINDS.index(KIND_OF.get(kind, "")) if personal else 0
        marks = [own * (n % 2) for n, part in enumerate(parts) for _ in part]
        if own or not personal:
            lines.append(Line("".join(parts), marks, MARKED.findall(text), kind))
    for row in LABELLED:
        own = KINDS.index(KIND_OF.get(row["kind"], "")) if row["spans"] else 0
        marks = [0] * len(row["text"])
        for start, end in row["spans"]:
            marks[start:end] = [own] * (end - start)
        if own or not row["spans"]:
            lines.append(Line(row["text"], marks, [row["text"][a:b] for a, b in row["spans"]], row["kind"]))
    return lines


def stretches(path: Path, alphabet: Alphabet) -> list[str]:
    """Of every second real row up to six stretches of three lines with letters or digits, in any order."""
    found = []
    with gzip.open(path, "rt") as file:
        for number, row in enumerate(file):
            for part in re.findall(r"[^\n]+(?:\n[^\n]+){0,2}", orjson.loads(row)["text"])[: 6 * (number % 2 == 0)]:
                _, classes = alphabet.read(part[:160])
                if tagger.counted_in(classes).sum() >= tagger.LEAST:
                    found.append(part[:160])
    random.Random(1).shuffle(found)
    return [text for text in found if not privacy.find(text)]


class Net(nn.Module):
    """`Tagger.chances` before its softmax, with dropout."""

    def __init__(self, known: int) -> None:
        super().__init__()
        self.characters, self.classes = nn.Embedding(known, CHARACTER), nn.Embedding(CLASSES, CLASS)
        self.first = nn.Conv1d(CHARACTER + CLASS, WIDTH, 3, padding=1)
        self.more = nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, 3, padding=d, dilation=d) for d in DILATIONS)
        self.drop, self.out = nn.Dropout(0.15), nn.Linear(WIDTH, len(KINDS))

    def forward(self, ids: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        if self.training:  # characters never met
            ids = torch.where(torch.rand(ids.shape) < 0.12, tagger.UNKNOWN, ids)
        here = (classes != tagger.PAD)[:, None]
        hidden = torch.cat([self.classes(classes), self.characters(ids)], -1).transpose(1, 2) * here
        hidden = torch.relu(self.first(hidden)) * here
        for layer in self.more:
            hidden = hidden + self.drop(torch.relu(layer(hidden))) * here
        return self.out(hidden.transpose(1, 2))

    def arrays(self) -> dict[str, np.ndarray]:
        convolutions = [self.first, *self.more]
        found = {f"weight_{n}": layer.weight.permute(2, 1, 0) for n, layer in enumerate(convolutions)}
        found |= {f"bias_{n}": layer.bias for n, layer in enumerate(convolutions)}
        found |= {"characters": self.characters.weight, "classes": self.classes.weight}
        found |= {"weight_out": self.out.weight.T, "bias_out": self.out.bias}
        return {name: values.detach().contiguous().numpy().astype(np.float16) for name, values in found.items()}


class First(nn.Module):
    """Logits of the first stage: weights of the bigrams around a place, added up."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Embedding(BIGRAMS, 1)
        nn.init.constant_(self.weights.weight, -1 / AROUND)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        each = self.weights(torch.from_numpy(tagger.bigrams(ids.numpy())))[..., 0]
        size = 2 * AROUND + 1
        return nn.functional.avg_pool1d(each[:, None], size, 1, AROUND)[:, 0] * size


HAN = "零一二三四五六七八九"


def varied(line: Line, chance: random.Random) -> str:
    """With other digits and letters, now and then in another script."""
    text, script = list(line.text), chance.random()
    others = {digit: chance.choice("0123456789") for digit in "0123456789"}
    for at, character in enumerate(text):
        if character in others and (line.marks[at] or chance.random() < 0.3):
            digit = others[character] if chance.random() < 0.8 else character
            if line.marks[at]:
                digit = HAN[int(digit)] if script < 0.08 else chr(0xFF10 + int(digit)) if script < 0.12 else digit
            text[at] = digit
        elif line.marks[at] and character in HAN and chance.random() < 0.7:
            text[at] = chance.choice(HAN)
        elif line.marks[at] and character.isascii() and character.isalpha() and chance.random() < 0.3:
            letter = chance.choice("abcdefghijklmnopqrstuvwxyz")
            text[at] = letter if character.islower() else letter.upper()
    return "".join(text)


def with_another(line: Line, spans: dict[int, list[str]], chance: random.Random) -> Line:
    """With an identifier of its kind from another line (`spans` by kind), where it has one in one piece."""
    if not _in_one_piece(line):
        return line
    before, _, after = line.text.partition(line.spans[0])
    kind, fresh = line.marks[len(before)], chance.choice(spans[line.marks[len(before)]])
    marks = [*line.marks[: len(before)], *[kind] * len(fresh), *line.marks[len(line.text) - len(after) :]]
    return Line(f"{before}{fresh}{after}", marks, [fresh], line.kind)


def _in_one_piece(line: Line) -> bool:
    return len(line.spans) == 1 and len(line.spans[0]) > 3 and line.text.count(line.spans[0]) == 1


def masked(text: str, marks: list[int]) -> str:
    """As cleaning leaves it: what is masked is nobody's."""
    runs = re.finditer("(.)\\1*", "".join(chr(65 + mark) for mark in marks))
    parts = [(ord(run[1]) - 65, text[run.start() : run.end()]) for run in runs]
    return "".join(f"<{KINDS[mark]}>" if mark else part for mark, part in parts)


def batches(
    lines: Sequence[Line], real: Sequence[str], alphabet: Alphabet, chance: random.Random
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Ids, classes and kinds (-1 beyond the text): lines, often beside real ones, and twice as many real ones."""
    spans = defaultdict(list)
    for line in filter(_in_one_piece, lines):
        spans[max(line.marks)].append(line.spans[0])
    order = list(lines)
    chance.shuffle(order)
    for start in range(0, len(order), BATCH):
        some: list[tuple[str, list[int]]] = []
        for own in order[start : start + BATCH]:
            line = with_another(own, spans, chance) if chance.random() < 0.3 else own
            text, marks = varied(line, chance), line.marks
            if any(marks) and chance.random() < 0.12:
                text = masked(text, marks)
                marks = [0] * len(text)
            if chance.random() < 0.5:
                beside = chance.choice(real)
                nothing = [0] * (len(beside) + 1)
                before = chance.random() < 0.4
                text = f"{beside}\n{text}" if before else f"{text}\n{beside}"
                marks = [*nothing, *marks] if before else [*marks, *nothing]
            # A stretch is cut anywhere.
            first, last = (chance.randrange(12) * (chance.random() < 0.25) for _ in range(2))
            some.append((text[first : len(text) - last], marks[first : len(text) - last]))
        some += [(text, [0] * len(text)) for text in chance.choices(real, k=BATCH * 2)]
        longest = min(LINE_CHARS, max(len(text) for text, _ in some))
        ids, classes = np.zeros((2, len(some), longest), np.int64)
        kinds = np.full((len(some), longest), -1)
        for n, (text, marks) in enumerate(some):
            size = len(text[:longest])
            ids[n, :size], classes[n, :size] = alphabet.read(text[:longest])
            kinds[n, :size] = marks[:longest]
        yield torch.from_numpy(ids), torch.from_numpy(classes), torch.from_numpy(kinds)


def learned(lines: list[Line], real: list[str], known: str, epochs: int) -> Net:
    torch.manual_seed(SEED)
    chance, alphabet, net = random.Random(SEED), Alphabet(known), Net(len(known) + 2)
    optimiser = torch.optim.AdamW(net.parameters(), lr=4e-3, weight_decay=0.02)
    steps = epochs * (len(lines) // BATCH + 1)
    pace = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps + 1, pct_start=0.1)
    for epoch in range(epochs):
        net.train()
        losses = []
        for ids, classes, kinds in batches(lines, real, alphabet, chance):
            loss = nn.functional.cross_entropy(net(ids, classes).transpose(1, 2), kinds, ignore_index=-1)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            pace.step()
            losses.append(loss.item())
        print(f"  epoch {epoch}: {np.mean(losses):.4f}", flush=True)
    return net.eval()


def learned_first(lines: list[Line], real: list[str], known: str) -> np.ndarray:
    chance, alphabet, stage = random.Random(0), Alphabet(known), First()
    optimiser = torch.optim.Adam(stage.parameters(), lr=0.01)
    for _ in range(6):
        for ids, _, kinds in batches(lines, real, alphabet, chance):
            here = kinds[:, :-1] >= 0
            logits, wanted = stage(ids)[here], (kinds[:, :-1] > 0)[here].float()
            loss = nn.functional.binary_cross_entropy_with_logits(logits, wanted, pos_weight=torch.tensor(5.0))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return stage.weights.weight.detach().numpy()[:, 0].astype(np.float16)


def threshold(first: np.ndarray, lines: list[Line], known: str) -> float:
    """The highest that passes on `KEPT` of the lines that hold something."""
    alphabet, highest = Alphabet(known), []
    for line in lines:
        if line.spans:
            sums = np.cumsum([0, *first[tagger.bigrams(alphabet.read(line.text)[0])].astype(np.float64)])
            at = np.arange(len(sums) - 1)
            highest.append((sums[np.minimum(at + AROUND + 1, len(sums) - 1)] - sums[np.maximum(at - AROUND, 0)]).max())
    return float(np.quantile(highest, 1 - KEPT)) - LOOSER


def characters(lines: list[Line], real: list[str]) -> str:
    counts = Counter("".join(3 * line.text for line in lines) + "".join(real))
    plain: Counter[str] = Counter()
    for character, count in counts.items():
        plain[tagger.folded(character)] += count
    return "".join(sorted(character for character, count in plain.most_common(MOST_KNOWN) if count >= 5))


def found(lines: list[Line], own: tagger.Tagger | None) -> str:
    """Share found by kind, and how many of the look-alikes are masked, counted as the tests count."""
    from persona_dagster_tests.corpus.test_personal_data import letters

    hidden = own.tag([line.text for line in lines]) if own else [[] for _ in lines]
    right, there, wrong = Counter[str](), Counter[str](), 0
    for line, tagged in zip(lines, hidden, strict=True):
        spans = privacy.find(line.text, hidden=tagged)
        gone = {at for start, end, _ in spans for at in range(start, end)}
        left = letters("".join("" if at in gone else c for at, c in enumerate(line.text)))
        there[line.kind] += 1
        right[line.kind] += bool(line.spans) and not any(letters(span) in left for span in line.spans)
        wrong += not line.spans and bool(spans)
    nothing = there.pop("none", 0)
    share = sum(right.values()) / max(1, sum(there.values()))
    kinds = ", ".join(f"{kind} {right[kind] / there[kind]:.2f}" for kind in sorted(there))
    return f"{share:.3f}, wrong {wrong} of {nothing}; {kinds}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--held", default="t,x,y,za", help="files that are not learned from, with commas between")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--real", type=Path, default=REAL)
    parser.add_argument("--package", action="store_true")
    options = parser.parse_args()
    sys.path.insert(0, str(REPOSITORY))  # the tests' sets
    held = set(filter(None, options.held.split(",")))
    files = {path.stem: read(path) for path in sorted(LINES.glob("*.jsonl"))}
    lines = read_others() + [line for name, some in files.items() if name not in held for line in some]
    real = stretches(options.real, Alphabet(""))
    known = characters(lines, real[HELD_REAL:])
    print(f"{len(lines)} lines, {len(real)} real stretches, {len(known)} characters", flush=True)
    net = learned(lines, real[HELD_REAL:], known, options.epochs)
    first = learned_first(lines, real[HELD_REAL:], known)
    arrays = {**net.arrays(), "first": first}
    own = tagger.Tagger({n: v.astype(np.float32) for n, v in arrays.items()}, known, threshold(first, lines, known))
    quiet = sum(bool(tagged) for tagged in own.tag(real[:HELD_REAL]))
    print(f"real stretches in which it finds something: {quiet} of {HELD_REAL}")
    for name in sorted(held):
        print(f"{name}: patterns {found(files[name], None)}\n   and tagger {found(files[name], own)}")
    if options.package:
        np.savez_compressed(WEIGHTS, **arrays, known=np.array(known), threshold=np.array(own.threshold))
        print(f"{WEIGHTS}, {WEIGHTS.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
