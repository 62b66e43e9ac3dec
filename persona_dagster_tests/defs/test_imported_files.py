"""Files of one's own from the UI: an asset launched with a path, and the sensor that goes on from there."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from persona_dagster.defs.assembly import build_defs
from persona_dagster.intake.import_to_archive import read_ledger
from persona_dagster.settings import Settings

CHAT = """[LINE] 與小明的聊天記錄
儲存日期：2024/03/05 22:10

2024/03/04（一）
10:00\t小明\t我今天被主管罵了
10:01\t小華\t抱抱，你已經很努力了
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", profile="own", hardware="cpu")


def launch(settings: Settings, **config: object) -> dg.ExecuteInProcessResult:
    with dg.DagsterInstance.ephemeral() as instance:
        return (
            build_defs(settings)
            .resolve_implicit_global_asset_job_def()
            .execute_in_process(
                instance=instance,
                asset_selection=[dg.AssetKey("imported_files")],
                run_config={"ops": {"imported_files": {"config": config}}},
                raise_on_error=False,
            )
        )


def test_a_path_is_taken_in_and_the_sensor_goes_on(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "desk").mkdir()
    (tmp_path / "desk" / "dump.csv").write_bytes("文章編號,內容\n1,主管又把鍋甩給我\n2,\n".encode("cp950"))
    (tmp_path / "desk" / "梯度.md").write_text("梯度是損失對每個參數的偏微分，指向上升最快的方向。", encoding="utf-8")
    result = launch(settings, paths=[str(tmp_path / "desk")], source="ptt", board="Salary")
    assert result.success
    [event] = result.asset_materializations_for_node("imported_files")
    assert (event.metadata["rows_stored"].value, event.metadata["rows_refused"].value) == (1, 1)
    assert event.metadata["notes"].value == 1 and "'text': '內容'" in str(event.metadata["files"].value)
    assert read_ledger(settings.intake_dir)["board"].to_list() == ["Salary", None]
    defs = build_defs(settings)
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance, repository_def=defs.get_repository_def())
        asked = defs.resolve_sensor_def("new_files").evaluate_tick(context).run_requests or []
    keys = {key.to_user_string() for request in asked for key in request.asset_selection or ()}
    assert keys == {"ptt_raw", "dcard_raw", "threads_raw", "chat_raw", "capybara_raw", "notes_raw"}


def test_a_chat_needs_consent_and_a_wrong_path_fails(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "line.txt").write_text(CHAT, encoding="utf-8")
    assert not launch(settings, paths=[str(tmp_path / "line.txt")]).success and not settings.imports_dir.exists()
    assert launch(settings, paths=[str(tmp_path / "line.txt")], consent=True).success
    assert read_ledger(settings.intake_dir)["source"].to_list() == ["chat", "chat"]
    assert not launch(settings, paths=[str(tmp_path / "nowhere.csv")]).success


def test_without_a_path_what_lies_in_the_imports_folder_is_taken_in(settings: Settings) -> None:
    """As `Materialize all` launches it."""
    assert launch(settings).success
    settings.imports_dir.mkdir(parents=True, exist_ok=True)
    row = '{"source": "ptt", "kind": "post", "board": "Hate", "id": "1", "text": "主管又把鍋甩給我"}'
    (settings.imports_dir / "dump.jsonl").write_text(row, encoding="utf-8")
    assert launch(settings).success
    assert read_ledger(settings.intake_dir)["fate"].to_list() == ["stored"]
