"""The Dagster UI in a real browser: what an operator does on a first day."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import psutil
import pytest
import yaml

from persona_dagster.commands.run import serve_reports
from persona_dagster.config.loading import find, read_yaml
from persona_dagster.crawl.browser import find_chromium
from persona_dagster.defs.assembly import build_defs
from persona_dagster.defs.engines import CANCELLED
from persona_dagster.defs.resources import ProjectResource
from persona_dagster.settings import Settings
from persona_dagster_tests.defs.test_links import free_port
from persona_dagster_tests.e2e.dev import PATIENCE, Dev, wait

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.train]
RECIPE = "capybara_qlora"
SECONDS = 1000  # Playwright counts milliseconds
FLAGS = ["--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync"]
STOP = "mutation($id: String!) { stopSensor(id: $id) { __typename } }"
SENSORS = """query { sensorsOrError(repositorySelector: {repositoryName: "__repository__", repositoryLocationName:
"persona_dagster"}) { ... on Sensors { results { name id sensorState { status } } } } }"""


SCHEDULES = """query { schedulesOrError(repositorySelector: {repositoryName: "__repository__", repositoryLocationName:
"persona_dagster"}) { ... on Schedules { results { name scheduleState { status } } } } }"""


@dataclass
class Ui:
    """A `dagster dev` of a tiny home, and a browser's page on it."""

    dev: Dev
    page: Page

    def open(self, path: str) -> None:
        self.page.goto(f"{self.dev.url}/{path}")

    def schedule(self, name: str) -> str:
        found = self.dev.ask(SCHEDULES)["schedulesOrError"]["results"]
        return next(one["scheduleState"]["status"] for one in found if one["name"] == name)

    def sensors(self) -> dict[str, tuple[str, str]]:
        found = self.dev.ask(SENSORS)["sensorsOrError"]["results"]
        return {one["name"]: (one["id"], one["sensorState"]["status"]) for one in found}


def trainers(home: Path) -> list[psutil.Process]:
    """Every process of a training of this home, workers included."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if "persona_dagster.training.train" in line and str(home) in line:
            found.append(process)
    return found


def make(settings: Settings, *wanted: tuple[tuple[str, ...], str | None]) -> None:
    job = build_defs(settings).resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.from_config(str(settings.home / "dagster")) as instance:
        for assets, partition in wanted:
            keys = [dg.AssetKey(name) for name in assets]
            assert job.execute_in_process(instance=instance, partition_key=partition, asset_selection=keys).success


def mix_for_a_training_without_end(settings: Settings) -> None:
    recipe = read_yaml(find(f"recipes/{RECIPE}.yaml", settings.config_dir))
    recipe["profiles"]["tiny"]["training"] |= {"epochs": 1e6, "on_trouble": "warn", "log_every": 100}
    recipe["profiles"]["tiny"]["training"] |= {"eval_every": 10_000, "save_every": 10_000}
    folder = settings.config_dir / "recipes"
    folder.mkdir(parents=True)
    (folder / f"{RECIPE}.yaml").write_text(yaml.safe_dump(recipe, allow_unicode=True), encoding="utf-8")
    make(settings, (("capybara_raw", "capybara_dialogues", "split"), None), (("recipe_config", "mix"), RECIPE))


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    from playwright.sync_api import sync_playwright

    url = f"http://127.0.0.1:{free_port()}"
    dev = Dev(Settings(home=tmp_path_factory.mktemp("home"), profile="tiny", hardware="cpu", reports_url=url))
    dev.extra["PERSONA_REPORTS_URL"] = url
    dev.prepare()
    make(dev.settings, (("notes_raw",), None), (("notes_raw",), None))  # a plot needs two points
    make(dev.settings, (("notes", "posts", "row_ledger"), None))
    reports = serve_reports(dev.settings)
    assert reports is not None
    try:
        dev.start()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=find_chromium(None), args=FLAGS)
            page = browser.new_page(viewport={"width": 1600, "height": 1000})
            page.set_default_timeout(PATIENCE * SECONDS)
            ui = Ui(dev, page)
            # The test is the only operator: what automation would start has tests of its own.
            for name, (sensor, _) in ui.sensors().items():
                if name != "new_files":
                    dev.ask(STOP, id=sensor)
            yield ui
            browser.close()
    finally:
        reports.kill()
        dev.stop()


def look(ui: Ui, name: str) -> None:
    """A screenshot for a person to look at, where $PERSONA_SCREENSHOTS names a folder."""
    if folder := os.environ.get("PERSONA_SCREENSHOTS"):
        ui.page.screenshot(path=Path(folder) / f"{name}.png")


def materialize(ui: Ui) -> None:
    """The button's accessible name begins with that of its icon, so it is found by what it shows."""
    ui.page.locator("button:has-text('Materialize')").first.click()


def test_the_lineage_opens_by_groups(ui: Ui) -> None:
    ui.open("asset-groups")
    for group in ("raw", "corpus", "dialogue", "model", "evaluation", "config"):
        ui.page.get_by_role("button", name=group).first.wait_for()
    look(ui, "lineage")


def test_numbers_have_a_plot(ui: Ui) -> None:
    ui.open("assets/notes_raw")
    ui.page.get_by_text("captures_read").first.wait_for()
    ui.page.get_by_role("button", name="Plots").click()
    ui.page.locator("canvas").first.wait_for()
    look(ui, "plot")


def test_an_asset_is_materialised_by_a_click_and_turns_green(ui: Ui) -> None:
    before = len(ui.dev.runs("notes_raw"))
    ui.open("assets/notes_raw")
    ui.page.get_by_text("captures_read").first.wait_for()  # until then a click does nothing
    materialize(ui)
    wait("a run was started", lambda: len(ui.dev.runs("notes_raw")) == before + 1)
    wait("the run succeeds", lambda: ui.dev.runs("notes_raw")[0]["status"] == "SUCCESS")
    ui.open("assets/notes_raw")
    ui.page.locator("[class*=green], [class*=success], [aria-label*=success]").first.wait_for()
    ui.page.get_by_text("captures_read").first.wait_for()  # its metadata, to read
    look(ui, "materialised")


@pytest.mark.soak
@pytest.mark.parametrize(
    ("asset", "says"),
    [
        ("row_ledger", "Where every row went"),
        ("posts", "What each rule did"),
        ("notes", "What each rule did"),
        ("eval_report", "of a recipe"),  # partitioned; a page as evaluation leaves it, so that nothing is trained
    ],
)
def test_a_report_opens_in_two_clicks(ui: Ui, asset: str, says: str) -> None:
    if asset == "eval_report":
        leave_a_report(ui.dev, says)
    ui.open("assets")
    in_list = ui.page.locator(f"a[href='/assets/{asset}']").first
    ui.page.locator("a[href^='/assets/capybara']").first.wait_for()
    ui.page.mouse.move(800, 600)

    def scrolled_to() -> bool:
        """The list draws the rows that are seen, and no others."""
        ui.page.mouse.wheel(0, 300)
        return bool(in_list.count())

    wait(f"{asset} is listed", scrolled_to)
    in_list.click()
    link = ui.page.locator(f"a[href^='{ui.dev.settings.reports_url}']").first
    with ui.page.expect_popup() as opened:
        link.click()
    opened.value.get_by_text(says).first.wait_for()
    look(ui, f"report-{asset}")
    opened.value.close()


def leave_a_report(dev: Dev, text: str) -> None:
    page = dev.settings.reports_dir / RECIPE / "report.html"
    page.parent.mkdir(parents=True)
    page.write_text(f"<p>{text}</p>", encoding="utf-8")
    metadata = {"report": ProjectResource.open(dev.settings).link(page)}
    with dev.instance() as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization("eval_report", partition=RECIPE, metadata=metadata))


def test_columns_show_what_they_are_and_what_they_come_from(ui: Ui) -> None:
    ui.open("assets/posts?view=overview")
    ui.page.get_by_text("text_raw").first.wait_for()
    look(ui, "columns")
    ui.open("assets/posts?view=lineage&column=text")
    ui.page.get_by_text("ptt_posts").first.wait_for()
    look(ui, "column-lineage")


@pytest.mark.soak
def test_each_kind_of_work_has_a_row_in_the_timeline(ui: Ui) -> None:
    named: dict[str, tuple[str, str | None]] = {
        **{f"clean_{source}": (f"{source}_posts", "import") for source in ("ptt", "dcard", "threads")},
        "rebuild_corpus": ("notes", None),
        "compare": ("iteration_report", None),
        "rescrape_ptt": ("ptt_raw", "import"),
        "retrain": ("recipe_config", RECIPE),
    }
    for job, (asset, partition) in named.items():
        ui.dev.launch(asset, partition, job)
        wait(f"{job} is over", lambda asset=asset: ui.dev.runs(asset)[0]["status"] in ("SUCCESS", "FAILURE"))
    ui.open("timeline")
    for job in named:
        ui.page.get_by_text(job, exact=True).first.wait_for()
    look(ui, "timeline")


def test_a_schedule_is_switched_off_and_on(ui: Ui) -> None:
    ui.open("automation")
    switch = ui.page.locator("[class*=VirtualizedTable_row]", has_text="nightly_ptt").locator(
        "label[class*=formatSwitch]"
    )
    for status in ("STOPPED", "RUNNING"):
        wait("the switch is live", lambda: "disabled" not in (switch.get_attribute("class") or "disabled"))
        switch.click()
        wait(f"the schedule is {status}", lambda status=status: ui.schedule("nightly_ptt") == status)
    look(ui, "automation")


@pytest.mark.soak
def test_a_backfill_over_boards(ui: Ui) -> None:
    ui.open("assets/threads_raw")
    ui.page.get_by_text("rescrape_threads").first.wait_for()
    materialize(ui)
    ui.page.get_by_role("button", name="All", exact=True).click()
    look(ui, "backfill")
    ui.page.get_by_role("button", name="Launch backfill").click()
    boards = {"失戀", "職場", "閨蜜", "import"}
    wait("a run a board", lambda: {run["partition"] for run in ui.dev.runs("threads_raw")} == boards)


@pytest.mark.soak
def test_a_cancelled_training_leaves_no_process(ui: Ui) -> None:
    mix_for_a_training_without_end(ui.dev.settings)
    ui.open("assets/lora_adapter")
    materialize(ui)
    ui.page.locator("[class*=TagSelector_tagSelectorContainer]").first.click()
    ui.page.get_by_role("menuitem").filter(has_text=RECIPE).first.click()
    ui.page.keyboard.press("Escape")
    look(ui, "training")
    ui.page.get_by_role("button", name="Launch 1 run").click()
    wait("the trainer is at work", lambda: bool(trainers(ui.dev.settings.home)))
    run = ui.dev.runs("lora_adapter")[0]["id"]
    ui.open(f"runs/{run}")
    ui.page.get_by_role("button", name="Terminate").first.click()
    ui.page.get_by_role("button", name="Terminate 1 run").click()
    wait("the run is cancelled", lambda: ui.dev.runs("lora_adapter")[0]["status"] == "CANCELED")
    wait("no process is left", lambda: not trainers(ui.dev.settings.home), 30)
    with ui.dev.instance() as instance:
        errors = [log.dagster_event.step_failure_data.error for log in instance.all_logs(run)
                  if log.dagster_event and log.dagster_event.is_step_failure]  # fmt: skip
    assert [(error.message.strip().endswith(CANCELLED), error.cause) for error in errors if error] == [(True, None)]
    look(ui, "cancelled")


def test_it_listens_on_this_machine_alone(ui: Ui) -> None:
    family = [psutil.Process(ui.dev.process.pid), *psutil.Process(ui.dev.process.pid).children(recursive=True)]
    listening = [c.laddr.ip for process in family for c in process.net_connections("inet") if c.status == "LISTEN"]
    assert listening and set(listening) <= {"127.0.0.1", "::1"}
