"""What somebody gets who has no clone: a built wheel, an empty folder, a clean HOME, another user."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from persona_dagster.settings import PROJECT_ROOT

pytestmark = [pytest.mark.soak, pytest.mark.browser, pytest.mark.train]
PROFILE = os.environ.get("PERSONA_WHEEL_PROFILE", "tiny")  # `sample` is the demo itself, twelve minutes
NOBODY = 65534
ROWS = "".join(
    f"{n},Hate,主管又在群組點名我{n},今天第{n}次被要求加班，主管還說年輕人要多歷練。,2026-0{n % 9 + 1}-11 21:00\n"
    for n in range(40)
)


@dataclass
class Stranger:
    """Another user of this machine, with nothing but a virtual environment and an empty folder."""

    folder: Path

    def run(self, *command: str, cwd: str = ".", timeout: int = 1400) -> str:
        bin_dir = self.folder / "venv" / "bin"
        env = {"HOME": str(self.folder), "PATH": f"{bin_dir}:/usr/bin:/bin", "LANG": "C.UTF-8"}
        env |= {"PERSONA_PROFILE": PROFILE, "PERSONA_HARDWARE": "cpu", "TMPDIR": str(self.folder / "tmp")}
        as_other = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.getuid() == 0 else {}
        done = subprocess.run(
            [str(bin_dir / command[0]), *command[1:]],
            cwd=self.folder / cwd, env=env, capture_output=True, text=True, timeout=timeout, check=False, **as_other,
        )  # type: ignore[call-overload]  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        print(done.stdout)
        return str(done.stdout)


def python_for_all() -> str:
    """A Python of this version that another user may start: this one, or the system's."""
    found = [sys.executable, shutil.which(f"python{sys.version_info[0]}.{sys.version_info[1]}", path="/usr/bin:/bin")]
    for python in filter(None, found):
        real = Path(python).resolve()
        if all(folder.stat().st_mode & 0o001 for folder in real.parents):
            return str(real)
    pytest.skip(f"another user may not start {sys.executable}, and the system has no Python of its version")


@pytest.fixture(scope="module")
def stranger() -> Iterator[Stranger]:
    folder = Path(tempfile.mkdtemp(prefix="persona-wheel-"))  # pytest's own folders are closed to others
    try:
        source = folder / "source"
        kept = shutil.ignore_patterns("__pycache__", ".git*", ".persona", ".venv*", "build", "*.egg-info", "site")
        shutil.copytree(PROJECT_ROOT / "persona_dagster", source / "persona_dagster", ignore=kept)
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(PROJECT_ROOT / name, source)
        build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "dist", "."]
        subprocess.run(build, cwd=source, check=True)
        (wheel,) = (source / "dist").glob("*.whl")
        making = [python_for_all(), "-m", "venv", "--without-pip", folder / "venv"]
        subprocess.run(making, check=True)
        # Dependencies are those of the environment that tests; the project in it is not seen past the wheel.
        site = next((folder / "venv" / "lib").glob("python*")) / "site-packages"
        (site / "beside.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n", encoding="utf-8")
        python = folder / "venv" / "bin" / "python"
        subprocess.run(
            [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", wheel], check=True
        )
        shutil.rmtree(source)
        (folder / "tmp").mkdir()
        if os.getuid() == 0:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        yield Stranger(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_three_commands_from_a_wheel_to_a_finished_report(stranger: Stranger) -> None:
    assert str(stranger.folder) in stranger.run(
        "python", "-c", "import persona_dagster; print(persona_dagster.__path__[0])"
    )
    assert "persona demo" in stranger.run("persona-dagster", "init", "my-bot")
    told = stranger.run("persona", "demo", cwd="my-bot")
    assert "Verdict" in told and "parts changed" in told and "nanobind" not in told
    (report,) = (stranger.folder / "my-bot" / "reports" / "persona_v2").glob("*/report.html")
    assert report.stat().st_size > 10_000
    assert "Nothing changed" in stranger.run("persona", "demo", cwd="my-bot")
    assert " passed" in stranger.run("python", "-m", "pytest", "-q", "tests", cwd="my-bot")


def test_from_a_csv_of_one_s_own_to_posts_and_their_funnel(stranger: Stranger) -> None:
    stranger.run("persona-dagster", "init", "own-bot")
    (stranger.folder / "own-bot" / "mine.csv").write_text(f"編號,看板,標題,內容,時間\n{ROWS}", encoding="utf-8")
    stranger.run("persona", "import", "mine.csv", "--source", "ptt", cwd="own-bot")
    told = stranger.run("persona", "build", "--until", "posts", cwd="own-bot")
    assert "of 40 imported rows" in told
    assert "40 records in" in stranger.run("persona", "funnel", cwd="own-bot")
    assert (stranger.folder / "own-bot" / "reports" / "funnel" / "funnel.html").is_file()
