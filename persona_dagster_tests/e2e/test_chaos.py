"""SIGKILL at random: the full graph under the real daemon ends in the state of an undisturbed run.

30 kills under `make soak`; $PERSONA_KILLS and $PERSONA_SEED choose others. With $PERSONA_CHAOS (a folder that stays)
and $PERSONA_SECONDS it stops after so many seconds, and the next call goes on where it was. Meanwhile boards are asked
again and the recipe is edited and put back, so that there are browsers and trainers to hit from first to last.

PERSONA_CHAOS_PROFILE=sample takes the packaged boards and the real base model instead: one training, minutes long.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import orjson
import psutil
import pytest
import yaml

from persona_dagster.archive.archive import Archive
from persona_dagster.config.loading import PACKAGED, read_yaml
from persona_dagster.config.sources import IMPORT_BOARD, load_sources
from persona_dagster.corpus.tables import Tables
from persona_dagster.defs.demo import run
from persona_dagster.defs.resources import SCHEMAS
from persona_dagster.digest import POST_MEANING, file_digest, frame_digest
from persona_dagster.records import FORUMS
from persona_dagster.settings import Profile, Settings
from persona_dagster_tests.config.editing import boards
from persona_dagster_tests.e2e.dev import PATIENCE, Dev, partition_of, wait

KILLS, SEED = int(os.environ.get("PERSONA_KILLS", "30")), int(os.environ.get("PERSONA_SEED", "1"))
SECONDS = float(os.environ.get("PERSONA_SECONDS", "inf"))
STARTED = time.monotonic()
V2 = "persona_v2"
PROFILE: Profile = "sample" if os.environ.get("PERSONA_CHAOS_PROFILE") == "sample" else "tiny"
TINY_BOARDS = {"ptt": "Hate", "dcard": "mood", "threads": "失戀"}
SETTLED_BY = 5400  # seconds from the start of the test
pytestmark = [pytest.mark.browser, pytest.mark.train, pytest.mark.soak, pytest.mark.timeout(2 * SETTLED_BY)]
SERVICES = ("dev", "webserver", "daemon", "code server")  # after one of these an operator starts all again
# How long a kind that is not there is waited for before another is hit, and how long it is left alone meanwhile.
FINDING_SECONDS, AT_PEACE = {"tiny": (40, (2, 20)), "sample": (400, (5, 60))}[PROFILE]
# Of the recipe, a fifth of the kills each; None: as packaged.
LEARNING_RATES = (None, 2e-2, 3e-2, 4e-2, None) if PROFILE == "tiny" else (None,)
CALM_SECONDS = 75  # more than two ticks of the automation: nothing is left to do
KINDS = {  # what a command line shows, most telling first
    "persona_dagster.training": "trainer",
    "persona_dagster.evaluation": "evaluation",
    "chrom": "browser",
    "playwright": "browser",
    "dagster_webserver": "webserver",
    "dagster._daemon": "daemon",
    "api grpc": "code server",
    "dagster dev": "dev",
    "multiprocessing.spawn": "run worker",
}
QUICKER = {
    "poll_interval_seconds: 30": "poll_interval_seconds: 10",
    "start_timeout_seconds: 300": "start_timeout_seconds: 60",
}


def home_at(folder: Path) -> Settings:
    """A home, of three boards where it is tiny. The key of the pseudonyms is the same in all, so that rows can be
    compared."""
    settings = Settings(home=folder, profile=PROFILE, hardware="cpu")
    if (folder / "author.key").is_file():
        return settings
    (folder / "config").mkdir(parents=True, exist_ok=True)
    if PROFILE == "tiny":
        boards(folder / "config", **{source: [board] for source, board in TINY_BOARDS.items()})
    (folder / "author.key").write_bytes(b"0" * 64)
    return settings


def scraped(settings: Settings) -> list[tuple[str, str]]:
    """(source, board) of all that is asked."""
    sources = load_sources(settings.config_dir, settings.profile)
    return [(source, board) for source in FORUMS for board in sources.partitions(source) if board != IMPORT_BOARD]


def latest(folder: Path) -> Path:
    return folder / (folder / "latest").read_text(encoding="utf-8").strip()


def state(settings: Settings) -> dict[str, object]:
    """What a home means: content digests of every store, and that the catalogue shows the same rows."""
    archive = Archive(settings.raw_dir)
    found: dict[str, object] = {
        f"raw {source}/{board}": archive.digest(source, board)
        for source in (*FORUMS, "notes", "capybara")
        for board in archive.boards(source)
    }
    tables = Tables(settings.tables_dir)
    for table, schema in SCHEMAS.items():
        columns = [name for name in schema if name not in ("fetched_at", "snapshot", "url", "flags")]
        frame = tables.read(table, schema)
        found[table] = [frame.height, frame_digest(frame, POST_MEANING if "text_raw" in schema else columns)]
        assert tables.query(f'SELECT count(*) FROM "{table}"').item() == frame.height
    for name in ("mix", "adapters", "generations"):
        found[name] = latest(settings.home / name / V2).name
    # A report also tells the seconds of its training, so its name is its own; what it measured is not.
    metrics = orjson.loads((latest(settings.reports_dir / V2) / "metrics.json").read_bytes())
    found |= {f"report {part}": metrics[part] for part in ("verdict", "gates", "key", "intervals", "test")}
    found["weights"] = file_digest(latest(settings.adapters_dir / V2) / "adapter_model.safetensors")
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    kept = os.environ.get("PERSONA_CHAOS")
    return Path(kept) if kept else tmp_path_factory.mktemp("chaos")


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> dict[str, object]:
    path = folder / "undisturbed.json"
    if not path.is_file():
        settings = home_at(folder / "undisturbed")
        (settings.home / "dagster").mkdir(exist_ok=True)
        with dg.DagsterInstance.local_temp(str(settings.home / "dagster")) as instance:
            run(settings, (V2,), instance)
        path.write_bytes(orjson.dumps(state(settings)))
    return orjson.loads(path.read_bytes())


@pytest.fixture
def dev(folder: Path, undisturbed: dict[str, object]) -> Iterator[Dev]:
    dev = Dev(home_at(folder / "disturbed"), {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")})

    def quicker(text: str) -> str:
        for old, new in QUICKER.items():
            assert old in text
            text = text.replace(old, new)
        return text

    dev.prepare(quicker)
    dev.start()
    yield dev
    dev.stop()
    for process in dev.processes():
        process.kill()


def kind_of(process: psutil.Process) -> str | None:
    line = " ".join(process.cmdline())
    return next((kind for sign, kind in KINDS.items() if sign in line), None)


def victims(dev: Dev) -> dict[str, list[psutil.Process]]:
    by_kind: dict[str, list[psutil.Process]] = {}
    for process in dev.processes():
        try:
            if kind := kind_of(process):
                by_kind.setdefault(kind, []).append(process)
        except psutil.NoSuchProcess:
            continue
    return by_kind


def kill_one(dev: Dev, chance: random.Random, killed: Counter[str]) -> str:
    """SIGKILL to one process, of the kinds that were hit least so far. A trainer or a browser lives for seconds: the
    drawn kind is waited for, and hit at a random moment of its life."""
    least = min(killed[kind] for kind in KINDS.values())
    drawn = chance.choice(sorted({kind for kind in KINDS.values() if killed[kind] == least}))
    until = time.monotonic() + FINDING_SECONDS
    while drawn not in victims(dev) and time.monotonic() < until:
        click_what_is_missing(dev)
        if drawn == "browser":
            ask_again(dev, chance)
        time.sleep(0.1)
    time.sleep(chance.uniform(0, 2 if drawn == "browser" else 6))
    alive = victims(dev)
    kind = drawn if drawn in alive else min(sorted(alive), key=lambda kind: killed[kind])
    try:
        chance.choice(alive[kind]).send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:  # over in this moment: the next one
        return kill_one(dev, chance, killed)
    return kind


def edit_recipe(settings: Settings, stage: int) -> None:
    """What a person tries meanwhile. The last edit is taken back, so that the end is comparable."""
    own = settings.config_dir / "recipes" / f"{V2}.yaml"
    if (rate := LEARNING_RATES[stage]) is None:
        own.unlink(missing_ok=True)
        return
    recipe = read_yaml(PACKAGED / "recipes" / f"{V2}.yaml")
    recipe["profiles"][PROFILE]["training"]["learning_rate"] = rate
    own.parent.mkdir(exist_ok=True)
    own.write_text(yaml.safe_dump(recipe, allow_unicode=True), encoding="utf-8")


def restart(dev: Dev) -> None:
    """What a supervisor does: ends what is left of the services, not the runs, and starts them again."""
    dev.stop()
    for process in dev.processes():
        try:
            if kind_of(process) in SERVICES:
                process.kill()
        except psutil.NoSuchProcess:
            continue
    dev.start()


def made(dev: Dev, asset: str, partition: str | None) -> bool:
    with dev.instance() as instance:
        key = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[partition] if partition else None)
        return bool(instance.fetch_materializations(key, limit=1).records)


def unfinished(dev: Dev) -> list[dg.DagsterRun]:
    with dev.instance() as instance:
        return [run for run in instance.get_runs() if not run.is_finished]


def click_what_is_missing(dev: Dev) -> None:
    """The person's part: scrapes that were never made, and the first training once there is a mix."""
    wanted: list[tuple[str, str | None]] = [(f"{source}_raw", board) for source, board in scraped(dev.settings)]
    wanted += [("notes_raw", None), ("capybara_raw", None)]
    if made(dev, "mix", V2):
        wanted.append(("lora_adapter", V2))
    under_way = {
        (key.to_user_string(), run.tags.get("dagster/partition"))
        for run in unfinished(dev)
        for key in run.asset_selection or ()
    }
    for asset, partition in wanted:
        if (asset, partition) not in under_way and not made(dev, asset, partition):
            dev.launch(asset, partition)


def click_what_failed(dev: Dev) -> bool:
    """The person's part where a step was killed once more than the rules try it again. Whether there was anything."""
    if unfinished(dev):
        return False
    newest: dict[tuple[str, str | None], dg.DagsterRunStatus] = {}
    with dev.instance() as instance:
        for run in instance.get_runs():  # newest first
            for key in run.asset_selection or ():
                newest.setdefault((key.to_user_string(), partition_of(run)), run.status)
    failed = [one for one, status in newest.items() if status != dg.DagsterRunStatus.SUCCESS]
    for asset, partition in failed:
        dev.launch(asset, partition)
    return bool(failed)


def ask_again(dev: Dev, chance: random.Random) -> None:
    """A click on a board that was scraped before, so that there are browsers to hit all along. It brings no news."""
    source, board = chance.choice(scraped(dev.settings))
    busy = {key.to_user_string() for run in unfinished(dev) for key in run.asset_selection or ()}
    if f"{source}_raw" not in busy and made(dev, f"{source}_raw", board):
        dev.launch(f"{source}_raw", board)


def carry_on(dev: Dev, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        click_what_is_missing(dev)
        time.sleep(min(3, max(0, until - time.monotonic())))


def settle(dev: Dev) -> None:
    """Until everything was made and the automation has nothing left to do."""
    calm_since = time.monotonic()
    while time.monotonic() - calm_since < CALM_SECONDS:
        click_what_is_missing(dev)
        almost = time.monotonic() - calm_since > CALM_SECONDS - 10
        if not made(dev, "eval_report", V2) or unfinished(dev) or (almost and click_what_failed(dev)):
            calm_since = time.monotonic()
        if time.monotonic() - STARTED > SECONDS:
            pytest.skip("all kills were made; run it again to see the end")
        assert time.monotonic() - STARTED < SETTLED_BY, (
            f"still at work: {[(r.run_id, r.status) for r in unfinished(dev)]}"
        )
        time.sleep(3)


def test_kills_at_random_moments_change_nothing(undisturbed: dict[str, object], dev: Dev) -> None:
    log = dev.settings.home.parent / "killed.txt"
    killed = log.read_text(encoding="utf-8").split("\n")[:-1] if log.is_file() else []
    while len(killed) < KILLS:
        chance = random.Random(f"{SEED}:{len(killed)}")
        edit_recipe(dev.settings, len(LEARNING_RATES) * len(killed) // KILLS)
        ask_again(dev, chance)
        carry_on(dev, chance.uniform(*AT_PEACE))
        killed.append(kill_one(dev, chance, Counter(killed)))
        log.write_text("".join(f"{kind}\n" for kind in killed), encoding="utf-8")
        print(f"{time.strftime('%X')} killed: {killed[-1]}", flush=True)
        if killed[-1] in SERVICES:
            restart(dev)
        if time.monotonic() - STARTED > SECONDS:
            pytest.skip(f"{len(killed)} of {KILLS} kills so far; run it again to go on")
    edit_recipe(dev.settings, -1)
    # The next night: every board is asked again, and whatever is still behind catches up.
    for source, board in scraped(dev.settings):
        dev.launch(f"{source}_raw", board)
    settle(dev)
    print(Counter(killed))
    assert set(victims(dev)) <= set(SERVICES), "a process outlived its run"
    assert state(dev.settings) == undisturbed
    with dev.instance() as instance:
        pools = instance.event_log_storage.get_concurrency_keys()
        held = {pool: instance.event_log_storage.get_concurrency_info(pool).active_slot_count for pool in pools}
        assert not any(held.values()), held
    dev.stop()
    wait("no process is left", lambda: not dev.processes(), PATIENCE)
