"""`persona init`: the folder that it writes is a home and a `dg` project."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from persona_dagster.commands.run import ui
from persona_dagster.commands.setup import init
from persona_dagster.crawl.browser import find_chromium
from persona_dagster.scaffold.project import ProjectError, write_project
from persona_dagster.settings import PROJECT_ROOT, Settings, own_project

SOMMELIER = """
tag: "[侍酒師]"
title: Sommelier
color: "#7c2d12"
system_prompt: 你是侍酒師：先問場合，再推薦一支酒，說明香氣與搭餐。
feeds: [{builder: top_comments, sources: [dcard], boards: [food], hint: 1}]
questions: [吃牛排要配什麼酒？, 這支紅酒適合搭什麼菜？, 白酒要冰到幾度？, 送長輩哪一支葡萄酒好？]
examples:
  - [第一次送酒給長輩, 選一支果香明顯、單寧柔和的紅酒，不容易踩雷。中價位的黑皮諾就很討喜。]
  - [今晚吃海鮮配什麼酒, 清爽的白酒，像夏布利，酸度能襯出海鮮的甜。]
  - [紅酒要先醒嗎, 年輕又單寧重的先醒半小時，老酒開了就喝，香氣散得快。]
  - [烤肉配什麼酒好, 希哈的胡椒香跟炭火很搭，冰一下再喝更順口。]
  - [沒喝完怎麼辦, 塞回瓶塞直立放冰箱，三天內喝完；氣泡酒當天喝最好。]
probes: [今晚煮火鍋，配什麼酒好？]
"""
DG = Path(sys.executable).with_name("dg")


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PERSONA_", "DAGSTER_"))}
    home = {"PERSONA_HOME": str(folder), "DAGSTER_HOME": str(folder / "dagster"), "PYTHONPATH": str(PROJECT_ROOT)}
    return subprocess.run(command, cwd=folder, env=kept | home, capture_output=True, text=True, timeout=300, check=True)


def failing(folder: Path) -> str:
    with pytest.raises(subprocess.CalledProcessError) as raised:
        run(folder, sys.executable, "-m", "pytest", "tests")
    return str(raised.value.stdout)


def test_the_folder_is_a_dg_project_of_the_whole_graph_and_its_own_test_passes(tmp_path: Path) -> None:
    folder = tmp_path / "my-bot"
    write_project(folder)
    Settings(home=folder).prepare_instance()
    assert folder.stat().st_mode & 0o077 == 0
    listed = orjson.loads(run(folder, str(DG), "list", "defs", "--json").stdout)
    keys = {asset["asset_key"] for asset in listed["assets"]}
    assert {"ptt_raw", "posts", "mix", "lora_adapter", "eval_report"} <= keys
    run(folder, sys.executable, "-m", "persona_dagster.cli", "new", "recipe", "my_bot")
    assert (folder / "config" / "recipes" / "my_bot.yaml").is_file()
    run(folder, sys.executable, "-m", "persona_dagster.cli", "new", "persona", "sommelier")
    mine = folder / "config" / "personas" / "sommelier.yaml"
    assert "is the tag of mentor too" in failing(folder)  # as it was copied from the packaged example
    mine.write_text(SOMMELIER, encoding="utf-8")
    assert "2 passed" in run(folder, sys.executable, "-m", "pytest", "tests").stdout


@pytest.mark.soak
@pytest.mark.parametrize("scaffold", [True, False])
def test_dg_lists_checks_and_launches(tmp_path: Path, scaffold: bool) -> None:
    folder = tmp_path / "my-bot"
    write_project(folder)
    Settings(home=folder).prepare_instance()
    where = folder if scaffold else PROJECT_ROOT
    env = {"PERSONA_HOME": str(folder), "DAGSTER_HOME": str(folder / "dagster"), "PYTHONPATH": str(PROJECT_ROOT)}
    for words in (("list", "defs"), ("check", "defs"), ("list", "components"), ("launch", "--assets", "notes_raw")):
        done = subprocess.run(
            [DG, *words], cwd=where, env=os.environ | env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{words}: {done.stdout[-1500:]}{done.stderr[-1500:]}"
    assert list((folder / "raw" / "notes").iterdir())


def test_whoever_stands_in_it_uses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_project(tmp_path / "bot")
    monkeypatch.delenv("PERSONA_HOME", raising=False)
    monkeypatch.chdir(tmp_path / "bot" / "notes")
    assert own_project() == tmp_path / "bot"
    assert Settings().home == tmp_path / "bot"
    monkeypatch.chdir(tmp_path)
    assert own_project() is None


def test_the_ui_shows_the_project_in_which_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_project(tmp_path / "bot")
    started: list[tuple[str, ...]] = []
    monkeypatch.setattr("persona_dagster.commands.run._run_on_instance", lambda *words: started.append(words))
    monkeypatch.setattr("persona_dagster.commands.run.serve_reports", lambda settings: None)
    for folder in (tmp_path, tmp_path / "bot" / "notes"):
        monkeypatch.chdir(folder)
        ui()
    assert ["-w" in words for words in started] == [True, False]
    assert Path.cwd() == tmp_path / "bot"  # whose pyproject.toml names the module


def test_a_chromium_is_fetched_where_none_is_and_playwright_s_own_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path / "browsers"))
    monkeypatch.setattr(
        subprocess, "run", lambda command, **_: asked.append(command) or subprocess.CompletedProcess(command, 1)
    )
    init(tmp_path / "first")
    assert asked[0][1:4] == ["-m", "playwright", "install"] and "set PERSONA_CHROMIUM" in capsys.readouterr().out
    shell = tmp_path / "browsers" / "chromium_headless_shell-1" / "linux" / "headless_shell"
    shell.parent.mkdir(parents=True)
    shell.touch()
    init(tmp_path / "second")
    assert len(asked) == 1 and find_chromium() == shell


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ProjectError, match="holds something already"):
        write_project(tmp_path / "full")
    with pytest.raises(ProjectError, match="begins with a letter"):
        write_project(tmp_path / "1 bot")
    for name in ("Reports", "notes", "torch"):
        with pytest.raises(ProjectError, match="choose another name"):
            write_project(tmp_path / name)
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "mine.txt"]
