"""Killed at any moment, a forgetting ends whole at the next start, and a restore loses no tombstone; common lines harm
nothing."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa

from persona_dagster.archive.archive import Archive
from persona_dagster.artifacts import MixManifest
from persona_dagster.corpus.tables import Tables
from persona_dagster.lineage import byte_search, tombstones
from persona_dagster.lineage.backup import backup
from persona_dagster.lineage.dagster_storage import forget_postgres, postgres_holds, postgres_url
from persona_dagster.lineage.forget import JOURNAL, forget, resume
from persona_dagster.lineage.verify import rebuild, verify
from persona_dagster.settings import Settings
from persona_dagster_tests.lineage.home import KEPT, SECRET

URL = "https://www.dcard.tw/f/mood/p/7"
FORGET = (
    "from persona_dagster.lineage.forget import forget as do; from persona_dagster.settings import Settings; import sys"
)
FORGET += "; from pathlib import Path; print('ready', flush=True)"
FORGET += "; do(sys.argv[2], Settings(home=Path(sys.argv[1]), archive_url=None))"
RESTORE = FORGET.replace("lineage.forget import forget", "lineage.backup import restore").replace(
    "do(sys.argv[2], Settings(home=Path(sys.argv[1]), archive_url=None))",
    "do(Settings(home=Path(sys.argv[1]), archive_url=None), Path(sys.argv[2]))",
)


def killed(program: str, home: Path, argument: str, after_s: float) -> None:
    """The program, and SIGKILL `after_s` seconds into its work."""
    process = subprocess.Popen([sys.executable, "-c", program, str(home), argument], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(after_s)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def how_long(program: str, home: Path, argument: str) -> float:
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", program, str(home), argument], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    started = time.monotonic()
    process.wait()
    process.stdout.close()
    assert process.returncode == 0
    return time.monotonic() - started


def holders(settings: Settings) -> list[Path]:
    return byte_search.find(settings.home, byte_search.spellings(SECRET))


def forget_killed(template: Settings, tmp_path: Path, times: int, stored: Stored | None = None, seed: int = 7) -> None:
    """Copies of a home, each with a killed forgetting, ended by the next start or by the same command."""

    def fresh(name: str) -> Settings:
        settings = Settings(home=tmp_path / name, archive_url=None)
        shutil.copytree(template.home, settings.home)
        if stored:
            stored.copy_for(settings)
        return settings

    needed, draw, begun = how_long(FORGET, fresh("first").home, URL), random.Random(seed), 0
    for number in range(times):
        settings = fresh(f"home{number}")
        killed(FORGET, settings.home, URL, draw.uniform(0, needed))
        cut_short = any((settings.home / JOURNAL).glob("[!.]*/plan.json"))  # a half written one has begun nothing
        begun += cut_short
        if cut_short and number % 2:  # the next start of anything
            resume(settings)
        elif cut_short or not tombstones.read(settings.home):  # the same command
            forget(URL, settings)
        else:
            resume(settings)
        assert holders(settings) == [], number
        assert not [*(settings.home / JOURNAL).glob("*")], number
        assert verify(settings) == [], number
        assert len(tombstones.read(settings.home)) == 1
        if stored:
            assert stored.holders(settings) == [], number
        shutil.rmtree(settings.home)
    print(f"{times} killed within {needed:.2f} s, {begun} of them with a journal begun and not ended")
    assert begun, "no kill fell into the work: it would prove nothing"


def restore_killed(template: Settings, tmp_path: Path, times: int) -> None:
    """A backup of before the forgetting, restored and killed: the tombstone is there, the post is not."""
    draw, needed = random.Random(3), 0.0
    shutil.copytree(template.home, tmp_path / "made")
    made = Settings(home=tmp_path / "made", archive_url=None)
    backup(made, tmp_path / "copy")
    shutil.rmtree(made.home)
    for number in range(times + 1):
        settings = Settings(home=tmp_path / f"home{number}", archive_url=None)
        shutil.copytree(template.home, settings.home)
        forget(URL, settings)
        stones = tombstones.read(settings.home)
        if number == 0:
            needed = how_long(RESTORE, settings.home, str(tmp_path / "copy"))
        else:
            killed(RESTORE, settings.home, str(tmp_path / "copy"), draw.uniform(0, needed))
        left = {(stone.name, *stone.docs) for stone in tombstones.read(settings.home)}
        assert {(stone.name, *stone.docs) for stone in stones} <= left, number
        from persona_dagster.lineage.backup import resume_restore

        resume_restore(settings)
        resume(settings)
        assert holders(settings) == [] and verify(settings) == [], number
        for path in tmp_path.glob(f"home{number}*"):
            shutil.rmtree(path)


def test_a_journal_half_written_leaves_no_text(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, archive_url=None)
    half = tmp_path / JOURNAL / ".0123456789ab.tmp"
    half.mkdir(parents=True)
    (half / "needles.json").write_text(json.dumps({"pieces": [SECRET], "names": []}), encoding="utf-8")
    assert resume(settings) == [] and not half.exists()


def test_a_killed_forgetting_ends_whole(template: tuple[Settings, MixManifest], tmp_path: Path) -> None:
    forget_killed(template[0], tmp_path, 10)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(4))
def test_two_hundred_killed_forgettings_end_whole(
    template: tuple[Settings, MixManifest], tmp_path: Path, seed: int
) -> None:
    forget_killed(template[0], tmp_path, 50, seed=seed)


def test_a_killed_restore_loses_no_tombstone(template: tuple[Settings, MixManifest], tmp_path: Path) -> None:
    restore_killed(template[0], tmp_path, 3)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_fifty_killed_restores_lose_no_tombstone(template: tuple[Settings, MixManifest], tmp_path: Path) -> None:
    restore_killed(template[0], tmp_path, 50)


@pytest.mark.parametrize(
    "line",
    [
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '"dagster/data_version": "AssetMaterialization"',
        "Finished execution of step and materialized value of the asset",
        '{"id": 12, "texts": ["好難過',
    ],
)
def test_a_common_line_in_a_post_harms_nothing_else(home: tuple[Settings, MixManifest], line: str) -> None:
    """Planted in post 12, in every page's markup and in Dagster's own records."""
    settings, _ = home
    rows = Tables(settings.tables_dir).query("FROM posts")
    import polars as pl

    from persona_dagster.corpus.tables import write_parquet

    planted = pl.when(pl.col("post_id") == "12").then(pl.col("text_raw") + f"\n{line}").otherwise(pl.col("text_raw"))
    for table in ("posts", "dcard_posts"):
        write_parquet(rows.with_columns(planted.alias("text_raw")), settings.tables_dir / table / "all.parquet")
    archive = Archive(settings.raw_dir)
    pages = [capture for capture in archive.every("dcard", "mood") if capture.kind == "post"]
    from persona_dagster.digest import sha256
    from persona_dagster.records import Capture

    for page in pages[:30]:  # newer versions, with the line in their markup
        body = page.body + f"<!-- {line} -->".encode()
        fields = {name: getattr(page, name) for name in Capture.__dataclass_fields__ if name not in ("body", "sha256")}
        archive.append(
            [Capture(**fields | {"key": f"{page.key}x", "url": page.url + "x"}, body=body, sha256=sha256(body))]
        )
    own = settings.config_dir / "sources.yaml"
    own.write_text(f"# {line}\n", encoding="utf-8")
    with dg.DagsterInstance.local_temp(str(settings.home / "dagster")) as instance:

        @dg.asset
        def kept() -> dg.MaterializeResult:
            return dg.MaterializeResult(metadata={"note": line}, data_version=dg.DataVersion("v1"))

        dg.materialize([kept], instance=instance)
        report = forget("https://www.dcard.tw/f/mood/p/12", settings)
        version = instance.get_latest_materialization_event(dg.AssetKey("kept"))
        assert version is not None and version.asset_materialization is not None
        assert version.asset_materialization.tags["dagster/data_version"] == "v1"
    keys = {capture.key for capture in Archive(settings.raw_dir).every("dcard", "mood") if capture.kind == "post"}
    assert keys == {page.key for page in pages} - {"12"} | {f"{page.key}x" for page in pages[:30]}
    assert own.read_text(encoding="utf-8") == f"# {line}\n" and report.left == []
    assert verify(settings) == [] and rebuild(settings) and verify(settings) == []


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    """A server of our own on a socket, for as long as the tests; skipped where there is none."""
    pytest.importorskip("dagster_postgres")
    binary = shutil.which("initdb") or next(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), None)
    if binary is None or (os.getuid() == 0 and shutil.which("runuser") is None):
        pytest.skip("no Postgres here: apt-get install postgresql")
    # Not below pytest's own folder, which only its user may enter: Postgres does not run as root.
    bin_dir, data = Path(binary).parent, Path(tempfile.mkdtemp(prefix="persona-pg-")) / "data"
    data.parent.chmod(0o755)
    as_user = ["runuser", "-u", "nobody", "--"] if os.getuid() == 0 else []
    data.mkdir()
    if as_user:
        shutil.chown(data, "nobody")

    def run(*words: str) -> None:
        subprocess.run([*as_user, *words], check=True, stdout=subprocess.DEVNULL)

    run(binary, "-D", str(data), "-U", "dagster", "-A", "trust", "-E", "UTF8")
    options = f"-k {data} -c listen_addresses= -c fsync=off"
    control = [str(bin_dir / "pg_ctl"), "-D", str(data), "-w"]
    run(*control, "-o", options, "-l", str(data / "log"), "start")
    yield Stored(f"postgresql+psycopg2://dagster@/postgres?host={data}", tmp_path_factory.mktemp("stored"))
    run(*control, "-m", "immediate", "stop")
    shutil.rmtree(data.parent)


@dg.asset
def told() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"line": SECRET, "n": 3}, data_version=dg.DataVersion("v7"))


class Stored:
    """A Postgres in which Dagster stored the secret, with a copy of it for every home."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.data = sa.make_url(url), Path(str(sa.make_url(url).query["host"]))
        self.configure(folder, "postgres")
        with dg.DagsterInstance.from_config(str(folder)) as instance:
            dg.materialize([told], instance=instance, tags={"why": SECRET})
        self.engine = sa.create_engine(self.url.set(database="template1"), isolation_level="AUTOCOMMIT")

    def configure(self, folder: Path, database: str) -> str:
        url = self.url.set(database=database).render_as_string()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "dagster.yaml").write_text(f"storage:\n  postgres:\n    postgres_url: {url}\n", encoding="utf-8")
        return url

    def copy_for(self, settings: Settings) -> str:
        with self.engine.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {settings.home.name} WITH (FORCE)")
            connection.exec_driver_sql(f"CREATE DATABASE {settings.home.name} TEMPLATE postgres")
        return self.configure(settings.home / "dagster", settings.home.name)

    def holders(self, settings: Settings) -> list[str]:
        """The values, and the files of the database on the server's disk: dead rows are searched as well."""
        needles, name = byte_search.spellings(SECRET), settings.home.name
        found = ["a value"] * postgres_holds(self.url.set(database=name).render_as_string(), needles)
        with self.engine.connect() as connection:
            connection.exec_driver_sql("CHECKPOINT")
            oid = connection.exec_driver_sql(f"SELECT oid FROM pg_database WHERE datname = '{name}'").scalar_one()
        return found + [str(path) for path in byte_search.find(self.data / "base" / str(oid), needles)]


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_fifty_forgettings_killed_on_postgres_end_whole(
    stored: Stored, template: tuple[Settings, MixManifest], tmp_path: Path
) -> None:
    forget_killed(template[0], tmp_path, 50, stored)


def test_a_sweep_of_postgres_that_was_cut_short_is_made_good(
    stored: Stored, home: tuple[Settings, MixManifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows rewritten and committed, the program ended before the dead ones were swept from the disk."""
    settings, _ = home
    stored.copy_for(settings)

    def cut_short(*_: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(sa.Inspector, "has_table", cut_short)
        forget(URL, settings)
    assert resume(settings)[0].left == [] and stored.holders(settings) == []


def test_dagsters_postgres_is_rewritten_as_records(stored: Stored, home: tuple[Settings, MixManifest]) -> None:
    settings, _ = home
    folder, needles = settings.home / "dagster", byte_search.spellings(SECRET)
    postgres = stored.copy_for(settings)
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        assert postgres_holds(postgres, needles) and postgres_url(folder) == postgres
        report = forget(URL, settings)
        assert report.left == [] and not postgres_holds(postgres, needles) and "Dagster's Postgres" in report.files
        event = instance.get_latest_materialization_event(dg.AssetKey("told"))
        assert event is not None and event.asset_materialization is not None
        assert event.asset_materialization.metadata["n"].value == 3
        assert event.asset_materialization.tags["dagster/data_version"] == "v7"
        dg.materialize([told], instance=instance)
        assert len(instance.get_runs()) == 2
    assert forget_postgres(postgres, byte_search.spellings(KEPT)) == 0


def hidden_copies(folder: Path, text: str) -> list[Path]:
    """The text in containers and encodings that people bring."""
    import base64
    import io
    import zipfile
    from email.mime.multipart import MIMEMultipart
    from email.mime.text import MIMEText

    import orjson

    page = MIMEMultipart("related")
    page.attach(MIMEText(f"<p>{text}</p>", "html", "utf-8"))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", f"<w:t>{text}</w:t>")
    coded = base64.b64encode(f'{{"content": "{text}"}}'.encode()).decode()
    files = {
        "a.har": orjson.dumps({"log": {"entries": [{"response": {"content": {"text": coded, "encoding": "base64"}}}]}}),
        "b.mhtml": page.as_bytes(),
        "c.txt": text.encode("utf-16"),
        "d.txt": text.encode("big5"),
        "e.docx": packed.getvalue(),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in files]


def test_containers_and_encodings_are_searched_and_originals_kept(home: tuple[Settings, MixManifest]) -> None:
    settings, _ = home
    settings.imports_dir.mkdir()
    copies = hidden_copies(settings.imports_dir, SECRET)
    refused = settings.quarantine_dir / "dump.jsonl.rows.jsonl"  # where intake keeps what it could not take in
    refused.parent.mkdir()
    refused.write_text(f'{{"text": "{SECRET}"}}\n', encoding="utf-8")
    (settings.quarantine_dir / "bad.txt").write_text(KEPT, encoding="big5")
    innocent = settings.imports_dir / "other.txt"
    innocent.write_text(KEPT, encoding="utf-16")
    assert byte_search.find(settings.imports_dir, byte_search.spellings(SECRET)) == sorted(copies)
    report = forget(URL, settings)
    assert report.left == [] and innocent.is_file() and not any(path.exists() for path in copies)
    kept = settings.home / "forgotten" / "imports"
    assert {path.name for path in copies} <= {path.name for path in kept.iterdir()}
    assert len([*kept.glob("*.note.txt")]) == len(copies) == len(report.moved) - 1
    assert [path.name for path in settings.quarantine_dir.iterdir()] == ["bad.txt"]
    assert (settings.home / "forgotten" / "quarantine" / refused.name).is_file()
