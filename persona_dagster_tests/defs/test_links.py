"""Reports open from the UI by a link: made by place under reports/, and served by `persona ui` on loopback."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import dagster as dg
import httpx
import pytest

from persona_dagster.commands.run import serve_reports
from persona_dagster.defs.assembly import build_defs
from persona_dagster.defs.resources import ProjectResource
from persona_dagster.settings import Settings


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_the_link_of_a_materialisation_opens_its_page_also_in_a_moved_home(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    settings = Settings(home=tmp_path / "home", profile="tiny", hardware="cpu", reports_url=url)
    job = build_defs(settings).resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey("row_ledger")])
        [event] = result.asset_materializations_for_node("row_ledger")
    link = event.metadata["page"].value
    assert isinstance(link, str) and link.startswith(url)
    moved = settings.home.rename(tmp_path / "moved")
    server = serve_reports(Settings(home=moved, reports_url=url))
    assert server is not None
    try:
        for _ in range(100):
            try:
                page = httpx.get(link, trust_env=False)
                break
            except httpx.ConnectError:
                time.sleep(0.1)
        assert page.status_code == 200 and "<html" in page.text
        assert httpx.get(f"{url}/../raw/", trust_env=False).status_code == 404
        assert serve_reports(Settings(home=moved, reports_url=url)) is None  # one is there already
    finally:
        server.kill()
        server.wait()


def test_behind_a_proxy_the_link_is_the_proxy_s_and_nothing_is_served(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, reports_url="https://lab.example/reports/")
    project = ProjectResource.open(settings)
    link = project.link(settings.reports_dir / "corpus" / "失戀" / "data_card.html")
    assert link.value == "https://lab.example/reports/corpus/%E5%A4%B1%E6%88%80/data_card.html"
    assert serve_reports(settings) is None
    with pytest.raises(ValueError, match="not in the subpath"):
        project.link(tmp_path / "raw" / "x.html")
