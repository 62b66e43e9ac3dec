"""`persona import`, `persona build`, `persona funnel`: from a file of one's own to a mix, every row accounted for."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table

from persona_dagster.intake.file_formats import Options
from persona_dagster.intake.import_files import HUB_ID, Consents, Look, from_hub, look_at
from persona_dagster.intake.import_to_archive import Intake
from persona_dagster.intake.mapping import Mappings, read_mapping
from persona_dagster.intake.open_and_decode import IntakeError
from persona_dagster.pipes_reporting import progress_bars
from persona_dagster.settings import Settings

console = Console(soft_wrap=True, highlight=False)
SHOWN = 60  # characters of a field in a preview


app = typer.Typer()


@app.command("import")
def bring(  # noqa: PLR0917 - options of a command
    paths: Annotated[list[str], typer.Argument(help="files, folders, ZIPs, or the Hub's id of a data set")],
    source: Annotated[
        str | None, typer.Option(help="ptt, dcard, threads, chat or notes, where no column says it")
    ] = None,
    board: Annotated[str | None, typer.Option(help="of all rows, where no column says it")] = None,
    kind: Annotated[str | None, typer.Option(help="post or comment, where no column says it")] = None,
    columns: Annotated[list[str] | None, typer.Option("--map", help="FIELD=COLUMN, as often as needed")] = None,
    mapping: Annotated[Path | None, typer.Option(help="a mapping file in place of guessing")] = None,
    encoding: Annotated[
        str | None, typer.Option(help="utf-8, big5, gb18030, utf-16 …; guessed where not given")
    ] = None,
    delimiter: Annotated[str | None, typer.Option(help="of a CSV; guessed where not given")] = None,
    time_zone: Annotated[str | None, typer.Option(help="of times without one; default Asia/Taipei")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="show what it is taken for and three rows; write nothing")
    ] = False,
    consent: Annotated[bool, typer.Option("--consent", help="the people of these chats agree; do not ask")] = False,
) -> None:
    """Takes in whatever you bring: tables, dumps, chats, saved pages, notes. Shows how it is read; bad rows are set
    aside with reason and cure, and named."""
    settings = Settings()
    try:
        options = Options(
            source=source,
            board=board,
            kind=kind,
            columns=dict(_pair(text) for text in columns or ()),
            encoding=encoding,
            delimiter=delimiter.encode().decode("unicode_escape") if delimiter else None,
            time_zone=time_zone,
            mapping=read_mapping(mapping) if mapping else None,
        )
        looks = [look_at(_path(text, settings), options, Mappings(settings.mappings_dir)) for text in paths]
    except IntakeError as error:
        _fail([str(error)])
    for look in looks:
        _show(look)
    if dry_run:
        raise typer.Exit(1 if any(look.problems for look in looks) else 0)
    _ask_consent(looks, settings, consent)
    done, notes = _bring(looks, settings, options)
    _tell(done, notes, settings)
    if done.broken or any(look.problems for look in looks):  # a refused row is named, and keeps no script from going on
        raise typer.Exit(1)


def _pair(text: str) -> tuple[str, str]:
    field, equals, column = text.partition("=")
    if not equals:
        raise IntakeError(f"--map {text}", "is no FIELD=COLUMN", "Write --map text=內容")
    return field.strip(), column.strip()


def _path(text: str, settings: Settings) -> Path:
    path = Path(text).expanduser()
    if not path.exists() and not path.is_symlink() and HUB_ID.fullmatch(text):
        console.print(f"{text}: no such path here; asking the Hub")
        return from_hub(text, settings)
    return path.absolute()


def _show(look: Look) -> None:
    for seen in look.streams:
        stream = seen.stream
        about = [stream.format, stream.encoding, f"delimiter {stream.delimiter!r}" if stream.delimiter else None]
        console.print(f"[bold]{stream.name}[/bold]: {', '.join(filter(None, about))} → {stream.holds}")
        if stream.mapping and not stream.mapping.identity:
            mapping = stream.mapping
            fixed = {"source": mapping.source, "board": mapping.board, "kind": mapping.kind}
            pairs = [f"{field} ← {column}" for field, column in mapping.fields.items()]
            pairs += [f"{field} = {value}" for field, value in fixed.items() if value]
            if mapping.children:
                pairs.append(f"comments ← {mapping.children.column}")
            console.print(
                f"  {'settled' if stream.settled else 'guessed'}: {'; '.join(pairs)}; times in {mapping.time_zone}"
            )
        rows = [item.rows[0].fields for item in seen.first if item.rows]
        if rows:
            names = list(dict.fromkeys(name for row in rows for name in row))
            table = Table(*names, show_header=True)
            for row in rows:
                table.add_row(*(_short(row.get(name)) for name in names))
            console.print(table)
    for problem in look.problems:
        console.print(f"[red]{problem}[/red]", markup=True)


def _short(value: object) -> str:
    text = str("" if value is None else value).replace("\n", "⏎").replace("[", "\\[")
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _ask_consent(looks: list[Look], settings: Settings, given: bool) -> None:
    consents = Consents(settings)
    asked = [board for look in looks for board in consents.missing(look)]
    if asked and not given:
        typer.confirm(
            f"{len(asked)} chat(s): do the people in them agree that a model learns from what they wrote?", abort=True
        )
    if asked:
        for look in looks:
            consents.record(look)


def _bring(looks: list[Look], settings: Settings, options: Options) -> tuple[Intake, list[Path]]:
    from persona_dagster.archive.archive import Archive
    from persona_dagster.config.sources import load_sources
    from persona_dagster.intake.import_files import bring as lay_out_and_take_in

    denied = load_sources(settings.config_dir, settings.profile).denied_boards
    with progress_bars(console):
        return lay_out_and_take_in(looks, settings, Archive(settings.archive_url or settings.raw_dir), options, denied)


def _tell(done: Intake, notes: list[Path], settings: Settings) -> None:
    table = Table("file", "rows", "stored", "repeats", "refused", "other")
    for taken in done.files:
        known = (taken.fates["stored"], taken.fates["repeat"], taken.fates["refused"])
        cells = [f"{value:,}" for value in (taken.rows, *known, taken.rows - sum(known))]
        table.add_row(taken.file + (" (unchanged)" if taken.unchanged else ""), *cells)
    if done.files:
        console.print(table)
    for problem in done.problems[:20]:
        console.print(f"[yellow]{problem}[/yellow]")
    if done.problems:
        console.print(f"What could not be taken in lies in {settings.quarantine_dir}; mend it there and import again.")
    if notes:
        console.print(f"{len(notes)} note(s) in {settings.notes_dir}")
    if done.files or notes:
        console.print("Next: persona build --until posts, then persona funnel")


def _fail(problems: list[str]) -> None:
    for problem in problems:
        console.print(f"[red]{problem}[/red]")
    raise typer.Exit(1)


@app.command()
def build(
    recipe: Annotated[str, typer.Argument(help="whose mix and report")] = "persona_v2",
    until: Annotated[str, typer.Option(help="posts, mix or report")] = "report",
    with_notes_primer: Annotated[
        bool, typer.Option("--with-notes-primer", help="take the packaged notes in too")
    ] = False,
) -> None:
    """From what was imported, and only that, to posts, a mix, or the report; nothing of the sample stands beside it."""
    from persona_dagster.sample.content_loader import PACKAGED

    if until not in ("posts", "mix", "report"):
        raise typer.BadParameter("--until is one of posts, mix, report")
    settings = Settings()
    if with_notes_primer:
        shutil.copytree(PACKAGED / "notes", settings.notes_dir / "primer", dirs_exist_ok=True)
    raise typer.Exit(subprocess.call([sys.executable, "-m", "persona_dagster.defs.build_own_data", recipe, until]))


@app.command()
def funnel(
    recipe: Annotated[str | None, typer.Argument(help="whose mix to follow the rows into; default: the newest")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="every bucket with examples by file and row")] = False,
    every_row: Annotated[bool, typer.Option("--every-row", help="with --json: the fate of each row too")] = False,
    page: Annotated[Path | None, typer.Option(help="where to write the page; default: reports/funnel.html")] = None,
) -> None:
    """Where every row went: each in exactly one bucket, with file and row; the sums equal the input at every stage."""
    from persona_dagster.corpus.ledger import row_ledger
    from persona_dagster.corpus.ledger_page import examples, stages, write_page

    settings = Settings()
    ledger = row_ledger(settings, recipe)
    if ledger.is_empty():
        raise IntakeError(
            "the funnel", "no row was taken in yet", "persona import PATH, then persona build --until posts"
        )
    counts = stages(ledger)
    if as_json:
        opened = [one | {"examples": examples(ledger, one).to_dicts()} for one in counts]
        told = {"rows": ledger.height, "stages": opened} | ({"every_row": ledger.to_dicts()} if every_row else {})
        sys.stdout.buffer.write(orjson.dumps(told, default=str) + b"\n")
        return
    table = Table("stage", "bucket", "why", "rows")
    for one in counts:
        table.add_row(one["stage"], one["bucket"], one["why"] or "", f"{one['rows']:,}")
    console.print(table)
    records = ledger.filter(ledger["part"] == 0).height
    console.print(
        f"{records:,} records in, {ledger.height - records:,} comments within them; every one in one bucket above"
    )
    console.print(f"page: {write_page(ledger, page or settings.reports_dir / 'funnel' / 'funnel.html')}")


@app.command("export-mix")
def export(
    recipe: Annotated[str, typer.Argument(help="whose newest mix")],
    folder: Path,
    form: Annotated[
        str, typer.Option("--format", help="openai, sharegpt, alpaca, llamafactory or datasets")
    ] = "openai",
) -> None:
    """The newest mix of a recipe in the form that another program takes as it is."""
    from persona_dagster.artifacts import MixManifest, Versions
    from persona_dagster.publishing.mix_exports import export_mix

    mix = Versions(Settings().mix_dir / recipe, MixManifest.FILE).newest()
    console.print(f"{export_mix(mix, folder, form)}")
