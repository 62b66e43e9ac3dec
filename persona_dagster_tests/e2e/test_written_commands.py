"""Every command of README and tutorial, in both languages, as it is written and in its order, in a tiny home."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from persona_dagster.settings import PROJECT_ROOT
from persona_dagster_tests.test_docs import BLOCK

pytestmark = [pytest.mark.soak, pytest.mark.browser, pytest.mark.train]
PAGES = ("README.md", "README.zh-TW.md", "docs/tutorial.md", "docs/tutorial.zh-TW.md")
SERVERS = {"ui": 3000, "chat": 7860}  # commands that stay, and where they answer
COMMENTS = (
    "主管又把工作丟給我，還說年輕人要多歷練。",
    "抱抱你，先好好休息。",
    "他憑什麼？你直接把信轉給大主管啊。",
)
ROWS = [f"{n},Hate,標題{n},{COMMENTS[n % 3]}第{n}次,2026-03-11 21:00" for n in range(60)]
CSV = "\n".join(["編號,看板,標題,內容,時間", *ROWS])


def written(page: str) -> list[str]:
    """The lines of a page's blocks, without comments, each once."""
    text = (PROJECT_ROOT / page).read_text(encoding="utf-8")
    lines = (line.partition("  #")[0].strip() for block in BLOCK.findall(text) for line in block.splitlines())
    return list(dict.fromkeys(line for line in lines if line))


def here(line: str) -> str | None:
    """The command as it is run in this test; None where it is another test's subject (test_wheel.py, the suite)."""
    if line.startswith(("persona-dagster init", "pip install './persona")) or line == "make test":
        return None
    if line.startswith("pip install"):
        return line.replace("pip", f"{sys.executable} -m pip", 1).replace(
            "install", "install --dry-run --no-deps -q", 1
        )
    words = line.split()
    if words[0] == "make":  # the target's own recipe, without setting up a second environment
        words = ["persona", *words[1:]]
    if words[0] == "persona":
        words[:1] = [sys.executable, "-m", "persona_dagster.cli"]
    return " ".join(words)


def test_every_written_command_runs(tmp_path: Path) -> None:
    home = tmp_path / "home"
    env = os.environ | {"PERSONA_HOME": str(home), "PERSONA_PROFILE": "tiny", "PERSONA_HARDWARE": "cpu"}
    env |= {"PYTHONPATH": str(PROJECT_ROOT), "PERSONA_REPORTS_URL": "http://127.0.0.1:3901"}
    env.pop("DAGSTER_HOME", None)
    for name in ("posts.csv", "my_posts.csv"):
        (tmp_path / name).write_text(CSV, encoding="utf-8")
    (tmp_path / ".venv").symlink_to(sys.prefix)  # what is activated
    shutil.copy(PROJECT_ROOT / "constraints.txt", tmp_path)
    shutil.copy(PROJECT_ROOT / "pyproject.toml", tmp_path)
    ran: list[str] = []
    for page in PAGES:
        for line in written(page):
            command = here(line)
            if command is None or command in ran:
                continue
            ran.append(command)
            print(f"{page}: {line}", flush=True)
            if line.split()[-1] in SERVERS:
                answers(command, SERVERS[line.split()[-1]], tmp_path, env)
                continue
            shell = ["bash", "-ec", command]
            done = subprocess.run(shell, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
            expected = {0, 1} if " build " in command else {0}  # 60 rows are too few to train on: it says so
            assert done.returncode in expected, f"{line}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
            if done.returncode:
                why = ("too little to train on", "mix_suffices", "no train dialogue")
                assert any(one in done.stderr for one in why), done.stderr[-2000:]
    assert len(ran) >= 12, ran


def answers(command: str, port: int, folder: Path, env: dict[str, str]) -> None:
    """A server starts, answers a browser, and ends on Ctrl-C."""
    process = subprocess.Popen(["bash", "-ec", f"exec {command}"], cwd=folder, env=env, start_new_session=True)
    try:
        until = time.monotonic() + 180
        while True:
            try:
                assert httpx.get(f"http://127.0.0.1:{port}", trust_env=False, follow_redirects=True).status_code == 200
                return
            except httpx.HTTPError:
                assert process.poll() is None and time.monotonic() < until, command
                time.sleep(1)
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
