"""Removes a post or an author from every store, for good: planned whole, then carried out as one transaction.

The tombstone comes first, then a journal: the plan, and in a file of its own the pieces of text by which copies are
found. Each step can be repeated, so a run that was killed goes on from the journal, at the next start of anything that
writes here. The journal goes when the last store was searched.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import orjson
from filelock import FileLock

from persona_dagster import artifacts
from persona_dagster.conversation.mix_store import MixStore
from persona_dagster.lineage import backup_copies, byte_search, purge, tombstones
from persona_dagster.lineage.forget_plan import (
    ForgetPlan,
    Home,
    Target,
    UnknownTargetError,
    copy_of,
    homes_of,
    make_plan,
)
from persona_dagster.lineage.purge import JOURNAL
from persona_dagster.settings import Settings

PLAN, NEEDLES = "plan.json", "needles.json"


class LimitError(ValueError):
    """More would change than the limit allows without being asked; nothing was touched."""


@dataclass(slots=True)
class ForgetReport:
    """Counts and ids, never text. `left`: files in which the text still stands, and copies that could not be
    reached; empty when all is well."""

    target: str
    docs: list[str] = field(default_factory=list)
    own: int = 0
    others: int = 0
    captures: int = 0
    rows: dict[str, int] = field(default_factory=dict)  # by table
    pairs: list[str] = field(default_factory=list)
    mixes: list[str] = field(default_factory=list)  # rewritten or deleted
    adapters: dict[str, list[str]] = field(default_factory=dict)  # marked stale: the train rows that each saw
    models: list[str] = field(default_factory=list)  # exports and releases of those, marked too
    files: list[str] = field(default_factory=list)  # rewritten or deleted besides
    moved: list[str] = field(default_factory=list)  # the user's own, now in `forgotten/`
    copies: list[str] = field(default_factory=list)  # backups and old homes that were gone through
    searched: bool = False  # whether there was any text to look for
    left: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        sent = any(name.startswith("release ") for name in self.models)
        nowhere = (
            "- byte search: found nowhere" if self.searched else "- no line of it is its own: nothing to search for"
        )
        lines = [
            f"**Forgotten: {self.target}**",
            f"- {len(self.docs)} posts and comments ({self.others} of other people, below its pages), "
            f"{len(self.pairs)} dialogues made of them",
            f"- {self.captures} archived captures removed or cut; what was cut is cut again when a page is fetched",
            f"- rows removed: {', '.join(f'{table} {rows}' for table, rows in self.rows.items()) or 'none'}",
            f"- mixes written anew or deleted: {', '.join(self.mixes) or 'none held them'}",
            *(f"- adapter {name} is stale, it saw {', '.join(rows)}" for name, rows in self.adapters.items()),
            *(f"- made of it, and stale as well: {name}" for name in self.models),
            *(["- a release that was sent has to be taken off the Hub by hand"] if sent else []),
            f"- other files rewritten or deleted: {len(self.files)}",
            *(f"- yours, moved: {name}" for name in self.moved),
            f"- backups and old homes gone through: {', '.join(self.copies) or 'none known'}",
            "- **still found in: " + ", ".join(self.left) + "**" if self.left else nowhere,
        ]
        return "\n".join(lines)


def plan(target: str, settings: Settings) -> ForgetPlan:
    """What forgetting a post (URL or doc_id) or an author (`source:author`, or the author's key) would do.

    Raises:
        UnknownTargetError: nothing stored goes by that name.
    """
    made, _ = make_plan(Target.of(target, settings), settings, _now())
    return made


def forget(target: str, settings: Settings, *, most: int | None = None) -> ForgetReport:
    """Forgets it. `most`: the largest plan (`Plan.size`) that is carried out; None for any.

    Raises:
        UnknownTargetError: nothing stored goes by that name; nothing was touched.
        LimitError: the plan is larger than `most`; nothing was touched.
        StoreBusyError: another program holds a store; the rest is done at the next start, or by the same call.
    """
    asked = Target.of(target, settings)
    with _alone(settings):
        resumed = {plan.query: report for plan, report in _resume(settings)}
        if asked.digest in resumed:
            return resumed[asked.digest]
        if store := MixStore(settings.mix_url) if settings.mix_url else None:
            store.fetch_all(settings.mix_dir)  # what other machines made is gone through here, and sent back
        made, pieces = make_plan(asked, settings, _now())
        if most is not None and made.size > most:
            raise LimitError(f"{made.markdown()}\n\nmore than {most} captures and rows of others: confirm it (--yes)")
        needles = [asked.name] if asked.name else []
        return _carry_out(made, pieces, needles, settings)


def resume(settings: Settings) -> list[ForgetReport]:
    """Goes on with what was cut short; nothing where nothing was."""
    if not any((settings.home / JOURNAL).glob("*")):
        return []
    with _alone(settings):
        return [report for _, report in _resume(settings)]


def forget_again(settings: Settings) -> list[str]:
    """Applies every tombstone to what a restore brought back; returns the ids that had come back."""
    stones = tombstones.read(settings.home)
    archive = homes_of(settings)[0].archive()
    for name in {name for stone in stones for name in stone.keys}:
        source, board, key = name.split("/", 2)
        archive.forget(source, board, [key], "forgotten before a restore")  # type: ignore[arg-type]
    with _alone(settings):
        try:
            made, pieces = make_plan(Target.again(stones), settings, _now())
        except UnknownTargetError:
            return []
        _carry_out(made, pieces, [], settings)
    return made.docs


def _resume(settings: Settings) -> Iterator[tuple[ForgetPlan, ForgetReport]]:
    for folder in sorted((settings.home / JOURNAL).glob("*")):
        # A journal half written, before which nothing was touched, or half removed, when all was done.
        if folder.name.startswith(".") or not (folder / PLAN).is_file():
            shutil.rmtree(folder) if folder.is_dir() else None
            continue
        made = ForgetPlan.from_dict(orjson.loads((folder / PLAN).read_bytes()))
        kept = orjson.loads((folder / NEEDLES).read_bytes())
        yield made, _apply(made, kept["pieces"], kept["names"], settings)


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """One forgetting or restore at a time; crawls and merging go on between its steps, under their boards' locks."""
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with FileLock(settings.home / ".forgetting.lock"):
        yield


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _carry_out(made: ForgetPlan, pieces: list[str], names: list[str], settings: Settings) -> ForgetReport:
    folder = settings.home / JOURNAL / made.id
    with artifacts.replacing(folder) as fresh:
        fresh.chmod(0o700)
        (fresh / PLAN).write_bytes(orjson.dumps(made.to_dict()))
        (fresh / NEEDLES).write_bytes(orjson.dumps({"pieces": pieces, "names": names}))
        (fresh / NEEDLES).chmod(0o600)
    return _apply(made, pieces, names, settings)


def _apply(made: ForgetPlan, pieces: list[str], names: list[str], settings: Settings) -> ForgetReport:
    """Every step of a plan in every home, then the search; the journal is removed last."""
    homes = _homes(made, settings)
    report = ForgetReport(made.target, made.docs, made.own, made.others, searched=bool(pieces))
    report.copies = [home.label.removesuffix("/") for home, _ in homes[1:]]
    needles = {spelling for piece in pieces for spelling in byte_search.spellings(piece)}
    for home, of in homes:
        stone = tombstones.Tombstone(made.at, made.docs, made.authors, of.keys, made.pages)
        tombstones.write(home.settings.home, stone)
        report.adapters |= {home.label + name: rows for name, rows in of.adapters.items()}
        report.models += purge.mark_models(home, of, stone)
        report.captures += purge.forget_captures(home, of, pieces)
        report.pairs = sorted({*report.pairs, *of.pairs})
        report.mixes += purge.forget_mixes(home, made, of)
        for table, rows in purge.forget_rows(home, made, of, pieces).items():
            report.rows[home.label + table] = rows
        files, moved = purge.forget_files(home, of, needles | _named(names))
        report.files += files
        report.moved += [home.label + name for name in moved]
        if (home.settings.home / backup_copies.MANIFEST).is_file():
            backup_copies.seal(home.settings.home)
    if settings.mix_url:
        MixStore(settings.mix_url).mirror(settings.mix_dir)
    for home, _ in homes:
        report.left += purge.left(home, needles, pieces)
    report.left += [
        f"the backup {path}, which is not there to be searched "
        f"(bring it back, or strike it from {backup_copies.REGISTER})"
        for path in backup_copies.registered(settings.home)
        if not path.is_dir()
    ]
    folder = settings.home / JOURNAL / made.id
    (folder / PLAN).unlink(missing_ok=True)  # first: without it the rest is swept up
    shutil.rmtree(folder, ignore_errors=True)
    return report


def _named(names: list[str]) -> set[bytes]:
    """An author's name as pages and payloads write it, never as a word of somebody's text."""
    return {f"{left}{name}{right}".encode() for name in names for left, right in (('"', '"'), (">", "<"), (">", " ("))}


def _homes(made: ForgetPlan, settings: Settings) -> list[tuple[Home, purge.HomePlan]]:
    """The homes of the plan that are still there; `settings` is how the first is reached."""
    first = homes_of(settings)[0]
    found = []
    for of in made.homes:
        path = Path(of.home)
        if path == settings.home:
            found.append((first, of))
        elif path.is_dir():
            found.append((copy_of(path, settings), of))
    return found
