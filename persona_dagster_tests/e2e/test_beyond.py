"""Beyond one machine, as far as one machine can show it: Postgres as Dagster's storage, a Ray head with two workers, an
S3 server. Run in the environment of scripts/make_cluster_env.sh; skipped without it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from persona_dagster.archive.archive import Archive
from persona_dagster.artifacts import MixManifest, Versions
from persona_dagster.conversation.mix_store import MixStore
from persona_dagster.lineage.backup import backup, restore
from persona_dagster.settings import PROJECT_ROOT, Settings
from persona_dagster_tests.config.editing import boards
from persona_dagster_tests.e2e.dev import PATIENCE, Dev, wait

pytestmark = [pytest.mark.browser, pytest.mark.train, pytest.mark.soak]
BIN = Path(sys.executable).parent
V2 = "persona_v2"
PASSWORD = "only-for-this-test"
MATERIALIZE = ("-m", "dagster", "asset", "materialize", "-m", "persona_dagster.definitions", "--select")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def tiny_home(folder: Path) -> Dev:
    """A tiny home of three boards, and its instance."""
    boards(folder / "config", ptt=["Hate"], dcard=["mood"], threads=["失戀"])
    dev = Dev(Settings(home=folder, profile="tiny", hardware="cpu"), {"PATH": f"{BIN}:{os.environ['PATH']}"})
    dev.prepare()
    return dev


def python(dev: Dev, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        env=dev.environment(),
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


# Postgres


@contextmanager
def postgres(folder: Path) -> Iterator[int]:
    """A server of Debian's package on a port of its own; it refuses to run as root, so it is given to a user."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("no Postgres: apt-get install postgresql")
    programs, port = found[-1].parent, free_port()
    as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    folder.mkdir()
    secret = folder / "password"
    secret.write_text(PASSWORD, encoding="utf-8")
    if as_user:
        shutil.chown(folder, "postgres")
        shutil.chown(secret, "postgres")
        for above in folder.parents[:3]:
            above.chmod(0o755)
    data = folder / "data"
    command = [str(programs / "initdb"), "-D", str(data), "-U", "dagster", "-A", "scram-sha-256"]
    subprocess.run([*as_user, *command, f"--pwfile={secret}"], check=True, capture_output=True, cwd=folder)
    options = ["-k", str(folder), "-h", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(
        [*as_user, str(programs / "postgres"), "-D", str(data), *options], cwd=folder, stderr=subprocess.DEVNULL
    )
    try:
        ready = [str(programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(port), "-q"]
        wait("Postgres answers", lambda: subprocess.run(ready, check=False).returncode == 0, 60)
        env = {**os.environ, "PGPASSWORD": PASSWORD}
        subprocess.run(
            [str(programs / "createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", "dagster", "dagster"],
            check=True,
            env=env,
        )
        yield port
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)


def test_the_tiny_graph_with_dagsters_storage_in_postgres(tmp_path: Path) -> None:
    """The dagster.yaml of deploy/compose, on a port of the test's own; the whole graph, and again with nothing new."""
    pytest.importorskip("dagster_postgres", reason="no dagster-postgres: scripts/make_cluster_env.sh")
    import psycopg2

    dev = tiny_home(tmp_path / "home")
    with postgres(tmp_path / "postgres") as port:
        text = (PROJECT_ROOT / "deploy" / "compose" / "dagster.yaml").read_text(encoding="utf-8")
        assert "port: 5432" in text
        (dev.dagster_home / "dagster.yaml").write_text(text.replace("5432", str(port)), encoding="utf-8")
        dev.extra |= {"DAGSTER_PG_HOST": "127.0.0.1", "DAGSTER_PG_PASSWORD": PASSWORD}
        python(dev, "-m", "persona_dagster.defs.demo")
        assert "Nothing changed" in python(dev, "-m", "persona_dagster.defs.demo")
        with psycopg2.connect(host="127.0.0.1", port=port, user="dagster", password=PASSWORD) as connection:
            cursor = connection.cursor()
            cursor.execute("select status, count(*) from runs group by status")
            runs = dict(cursor.fetchall())
            cursor.execute("select count(distinct asset_key) from asset_keys where last_materialization is not null")
            (assets,) = cursor.fetchone()
    print(runs, assets)
    assert set(runs) == {"SUCCESS"} and runs["SUCCESS"] >= 20
    assert assets >= 18
    assert not list(dev.dagster_home.rglob("*.db"))  # nothing went to SQLite beside it


# Ray


@contextmanager
def ray_cluster(dev: Dev) -> Iterator[str]:
    """A head without a CPU to give and two workers of one each, as processes of this machine."""
    port, dashboard = free_port(), free_port()
    env = {**dev.environment(), "RAY_DISABLE_USAGE_STATS": "1", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    env["RAY_raylet_start_wait_time_s"] = str(PATIENCE)
    common = ["--block", "--object-store-memory=100000000", "--disable-usage-stats"]
    head = ["--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=true", "--dashboard-host=127.0.0.1"]
    worker = [f"--address=127.0.0.1:{port}", "--num-cpus=1"]
    started: list[subprocess.Popen[bytes]] = []
    log = (dev.settings.home / "ray.log").open("ab")

    def start(arguments: list[str]) -> None:
        started.append(
            subprocess.Popen(
                [str(BIN / "ray"), "start", *arguments, *common],
                env=env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        )

    try:
        start([*head, f"--dashboard-port={dashboard}", "--node-ip-address=127.0.0.1"])
        wait("the head answers", lambda: _alive(dashboard) == 1, 2 * PATIENCE)
        for nodes in (2, 3):  # one by one: each start takes 10 CPU-s
            start(worker)
            wait("a worker comes", lambda nodes=nodes: _alive(dashboard) == nodes, 2 * PATIENCE)
        yield f"http://127.0.0.1:{dashboard}"
    finally:
        for process in reversed(started):  # by their own sessions: `ray stop` ends every Ray of the machine
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        log.close()


def _alive(dashboard: int) -> int:
    """Nodes of the cluster, the head counted."""
    try:
        told = httpx.get(f"http://127.0.0.1:{dashboard}/nodes?view=summary", timeout=30, trust_env=False).json()
    except httpx.HTTPError:
        return 0
    return sum(node["raylet"].get("state") == "ALIVE" for node in told["data"]["summary"])


def test_corpus_steps_and_a_training_on_a_ray_cluster(tmp_path: Path) -> None:
    """By PERSONA_ENGINE alone: corpus steps become Ray jobs, and so does the training that one of them starts."""
    pytest.importorskip("ray", reason="no Ray: scripts/make_cluster_env.sh")
    from ray.job_submission import JobStatus, JobSubmissionClient

    dev = tiny_home(tmp_path / "home")
    dev.extra["PERSONA_ENGINE"] = "ray"
    recipe = "capybara_qlora"
    with ray_cluster(dev) as address:
        dev.extra["PERSONA_RAY_ADDRESS"] = address
        started = time.monotonic()
        python(dev, *MATERIALIZE, "capybara_raw,capybara_dialogues,split")
        corpus = time.monotonic() - started
        python(dev, *MATERIALIZE, "recipe_config,mix,lora_adapter", "--partition", recipe)
        jobs = JobSubmissionClient(address).list_jobs()
    print(f"corpus {corpus:.0f} s, all {time.monotonic() - started:.0f} s, {len(jobs)} Ray jobs")
    assert {job.status for job in jobs} == {JobStatus.SUCCEEDED}
    steps = [job for job in jobs if "execute_step" in job.entrypoint]
    training = [job for job in jobs if "persona_dagster.training.train" in job.entrypoint]
    assert len(training) == 1
    assert len(steps) >= 6
    adapter = dev.settings.adapters_dir / recipe
    assert (adapter / (adapter / "latest").read_text(encoding="utf-8").strip() / "adapter_model.safetensors").is_file()


# S3


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The file system of an S3 server of this test's own, with the bucket `persona`; the environment leads to it."""
    pytest.importorskip("s3fs", reason="no s3fs: scripts/make_cluster_env.sh")
    moto = pytest.importorskip("moto.server", reason="no moto: scripts/make_cluster_env.sh")
    import s3fs

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    # What moto holds lives as long as this process, not as its server: another test's bucket may stand there.
    httpx.post(f"http://{host}:{port}/moto-api/reset").raise_for_status()
    try:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        store = s3fs.S3FileSystem(endpoint_url=f"http://{host}:{port}", skip_instance_cache=True)
        store.mkdir("persona")
        yield store
    finally:
        server.stop()


def test_the_archive_on_an_s3_server(tmp_path: Path, bucket: Any) -> None:
    """PERSONA_ARCHIVE_URL=s3://…: scraped, read, cleaned and digested as on a disk."""
    dev = tiny_home(tmp_path / "home")
    dev.extra["PERSONA_ARCHIVE_URL"] = "s3://persona/raw"
    python(dev, *MATERIALIZE, "ptt_raw,ptt_posts", "--partition", "Hate")
    python(dev, *MATERIALIZE, "notes_raw,notes")
    parts = [path for path in bucket.find("persona/raw/ptt/Hate") if path.endswith(".parquet")]
    assert parts and not dev.settings.raw_dir.exists()
    local = tiny_home(tmp_path / "local")
    shutil.copy(dev.settings.home / "author.key", local.settings.home)
    python(local, *MATERIALIZE, "ptt_raw,ptt_posts", "--partition", "Hate")
    assert _posts(dev) == _posts(local) > 0


def test_mixes_on_an_s3_server(tmp_path: Path, bucket: Any) -> None:
    """PERSONA_MIX_URL=s3://…: the graph sends its mix there, a machine that has none gets the same bytes, and a backup
    brings back a lost bucket."""
    recipe = "capybara_qlora"
    dev = tiny_home(tmp_path / "home")
    urls = {"mix_url": "s3://persona/mix", "archive_url": "s3://persona/raw"}
    dev.extra |= {f"PERSONA_{name.upper()}": url for name, url in urls.items()}
    python(dev, *MATERIALIZE, "capybara_raw,capybara_dialogues,split")
    python(dev, *MATERIALIZE, "recipe_config,mix", "--partition", recipe)
    made, there = Versions(dev.settings.mix_dir / recipe, MixManifest.FILE).newest(), tmp_path / "there" / recipe
    MixStore("s3://persona/mix").fetch(there)
    assert Versions(there, MixManifest.FILE).newest().name == made.name
    assert {f.name: f.read_bytes() for f in Versions(there, MixManifest.FILE).newest().iterdir()} == {
        f.name: f.read_bytes() for f in made.iterdir()
    }
    settings = dev.settings.model_copy(update=urls)
    backup(settings, tmp_path / "copy")
    digest = Archive(urls["archive_url"]).digest("capybara", "train")
    stored = {path: bucket.cat_file(path) for path in bucket.find("persona", refresh=True)}
    assert {path.split("/")[1] for path in stored} == {"mix", "raw"}
    bucket.rm("persona/mix", recursive=True)
    bucket.rm("persona/raw", recursive=True)
    restore(settings, tmp_path / "copy")
    assert {path: bucket.cat_file(path) for path in bucket.find("persona", refresh=True)} == stored
    assert Archive(urls["archive_url"]).digest("capybara", "train") == digest
    shutil.rmtree(made)
    (made.parent / "latest").unlink()
    MixStore("s3://persona/mix").mirror(dev.settings.mix_dir)
    bucket.invalidate_cache()
    assert not [path for path in bucket.find("persona") if "/mix/" in path]  # what is forgotten here is gone there


def _posts(dev: Dev) -> int:
    import polars as pl

    return pl.read_parquet(dev.settings.tables_dir / "ptt_posts" / "Hate.parquet").height
