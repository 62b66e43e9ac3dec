"""The rows of a mix as the trainer sees them: token ids, loss mask, and the order of each epoch."""

from __future__ import annotations

import json
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from persona_dagster.digest import keyed_hash
from persona_dagster.models.chat_format import check_template, encode
from persona_dagster.records import RowId
from persona_dagster.training.job_spec import JobError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """One row as token ids; `labels` holds -100 wherever no loss falls. `pair_id` is shared by its copies."""

    row_id: str
    pair_id: str
    persona: str
    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows that fit, with what became of the others: by id, so that nothing is lost unseen."""

    rows: list[EncodedRow]
    dropped: list[str]  # row_ids of which no useful answer fits max_length
    cut: list[str]  # row_ids that were shortened

    @property
    def lengths(self) -> list[int]:
        return [len(row.input_ids) for row in self.rows]


def read_rows(mix_dir: Path, split: str, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Rows:
    """The rows of `mix_dir/<split>.jsonl`, tokenised with loss on the assistant's tokens alone.

    Raises:
        JobError: no such file, a line that is no row, no row at all, or none that fits `max_length`.
    """
    path = mix_dir / f"{split}.jsonl"
    if not path.is_file():
        raise JobError(f"{path}: missing; materialise the mix of this recipe first")
    check_template(tokenizer)
    rows, dropped, cut = [], [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            value = json.loads(line)
            row_id, persona, messages = value["row_id"], value["persona"], value["messages"]
            encoded = encode(messages, tokenizer, max_length)
        except (ValueError, KeyError, TypeError) as error:
            raise JobError(
                f"{path} line {number}: not a row of a mix ({error!r}); materialise the mix again"
            ) from error
        if encoded is None:
            dropped.append(row_id)
            continue
        if encoded.cut != "none":
            cut.append(row_id)
        rows.append(EncodedRow(row_id, RowId.read(row_id).pair, persona, encoded.input_ids, encoded.labels))
    if not rows and not dropped:
        raise JobError(f"{path}: empty; the recipe's mix found no dialogue (see the mix's manifest)")
    if not rows:
        raise JobError(f"{path}: none of {len(dropped)} rows fits training.max_length={max_length}; raise it")
    return Rows(rows, dropped, cut)


def epoch_order(pair_ids: Sequence[str], window: int, seed: int, epoch: int) -> list[int]:
    """Every row's index once, shuffled by keyed hash, copies of a pair not within `window` places of one step.

    `window` is the rows that one optimizer step sees. Same order on every machine, and for each epoch another.
    Where a pair has more copies than there are steps, copies share a step rather than get lost.
    """
    shuffled = sorted(
        range(len(pair_ids)), key=lambda index: keyed_hash(f"{seed}-{epoch}", pair_ids[index], str(index))
    )
    sizes = [min(window, len(pair_ids) - start) for start in range(0, len(pair_ids), window)]
    copies = defaultdict(list)
    for index in shuffled:
        copies[pair_ids[index]].append(index)
    # The most copied first, each copy to the emptiest step that lacks its pair.
    steps: list[list[int]] = [[] for _ in sizes]
    for group in sorted(copies.values(), key=len, reverse=True):
        _deal(group, steps, sizes, seed=f"{seed}-{epoch}")
    place = {index: position for position, index in enumerate(shuffled)}
    return [index for step in steps for index in sorted(step, key=place.__getitem__)]


def _deal(group: list[int], steps: list[list[int]], sizes: list[int], seed: str) -> None:
    """One pair's copies, each to a step of its own while steps with room last."""
    order = sorted(
        (number for number, step in enumerate(steps) if len(step) < sizes[number]),
        key=lambda number: (-(sizes[number] - len(steps[number])), keyed_hash(seed, str(group[0]), str(number))),
    )
    for position, index in enumerate(group):
        target = order[position] if position < len(order) else _with_room(steps, sizes)
        steps[target].append(index)


def _with_room(steps: list[list[int]], sizes: list[int]) -> int:
    return next(number for number, step in enumerate(steps) if len(step) < sizes[number])


def pack(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Rows by index, together where they fit into `most` tokens: the longest first, each where it leaves least over."""
    packs: list[list[int]] = []
    spaces: list[tuple[int, int]] = []  # (tokens left, pack), ascending
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        place = bisect_left(spaces, (lengths[index], -1))
        if place == len(spaces):
            packs.append([])
            spaces.append((most, len(packs) - 1))
        space, number = spaces.pop(place)
        packs[number].append(index)
        insort(spaces, (space - lengths[index], number))
    return packs


def batches(rows: Sequence[EncodedRow], size: int) -> Iterator[list[EncodedRow]]:
    """`rows` by length in batches of `size`: the least padding, for evaluation."""
    ordered = sorted(rows, key=lambda row: (len(row.input_ids), row.row_id))
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]
