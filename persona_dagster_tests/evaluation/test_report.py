"""The report as a reader meets it: whole, safe, and usable in a browser at two widths."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from persona_dagster.config.recipes import Base, Recipe
from persona_dagster.evaluation import evaluate as program
from persona_dagster.evaluation.iteration_report import write_iteration_report
from persona_dagster.evaluation.job_spec import EvaluateJob
from persona_dagster.evaluation.measure import Material
from persona_dagster.evaluation.prompts import Prompt
from persona_dagster.evaluation.report import PRACTICE, figure, marked, summary
from persona_dagster.pipes_reporting import Reporter
from persona_dagster_tests.evaluation.conftest import Hashed
from persona_dagster_tests.evaluation.test_gates import good, leaking, reciting

HOSTILE = (
    '<script>alert(1)</script><img src="https://evil.example/x.png" onerror="alert(2)">'
    '"><style>*{display:none}</style>{{ 7*7 }}'
)


def hostile(prompt: Prompt) -> str:
    return HOSTILE + good(prompt)


Publish = Callable[..., Path]


@pytest.fixture(scope="module")
def publish(
    make_material: Callable[..., Material], recipe: Recipe, mix: Path, hashed: Hashed, tmp_path_factory: Any
) -> Iterator[Publish]:
    """Runs the evaluation program over made outputs; the folder of the report."""
    patched = pytest.MonkeyPatch()
    patched.setattr(program, "load_encoder", lambda *_: hashed.encoder)
    patched.setattr(program, "Scorer", lambda _: hashed)

    def run(name: str, speak: Callable[[Prompt], str], **keywords: Any) -> Path:
        root = tmp_path_factory.mktemp(name)
        material = make_material(speak, **keywords)
        generations = root / "generations"
        generations.mkdir()
        material.generations.write_parquet(generations / "generations.parquet")
        material.likelihoods.write_parquet(generations / "likelihoods.parquet")
        sampling = recipe.evaluation.model_dump(exclude={"gates", "encoder", "reader", "read_rows"})
        settings = {"base": recipe.base.model_dump(), "dtype": "float32", "sampling": sampling, "seconds": 1.0}
        settings["adapter"] = "adapter"
        (generations / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
        adapter = root / "adapter"
        adapter.mkdir()
        log = [{"kind": "train", "step": step, "loss": 3 - step / 10} for step in range(1, 11)]
        log += [{"kind": "eval", "step": step, "loss": 3.1 - step / 12} for step in (1, 5, 10)]
        (adapter / "training_log.jsonl").write_text("\n".join(map(json.dumps, log)), encoding="utf-8")
        card = {
            "digest": "f" * 32,
            "recipe": recipe.model_dump(mode="json"),
            "plan": {"rows": 36},
            "steps": 10,
            "seconds": 12.5,
            "train_seconds": 10.0,
            "peak_memory_gib": 2.4,
            "energy_wh": 0.5,
            "machine": {"cards": ["Some card"]},
        }
        (adapter / "run_card.json").write_text(json.dumps(card), encoding="utf-8")
        job = EvaluateJob(
            recipe=recipe.model_copy(update={"name": name, "title": f"Model {name}"}),
            personas=material.personas,
            mix_dir=mix,
            models_dir=root / "models",
            generations_dir=generations,
            adapter_dir=adapter,
            out_dir=root / "reports",
        )
        job.save(root / "job.json")
        folder = program.evaluate(job, Reporter(None, quiet=True))
        assert (
            program.evaluate(
                EvaluateJob.model_validate_json((root / "job.json").read_text("utf-8")), Reporter(None, True)
            )
            == folder
        )
        return folder

    yield run
    patched.undo()


@pytest.fixture(scope="module")
def good_report(publish: Publish) -> Path:
    return publish("good", good)


@pytest.fixture(scope="module")
def bad_report(publish: Publish) -> Path:
    return publish("bad", reciting, losses=(3.0, 2.9, 0.4))


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    """A page of a real Chromium that records what it is asked to load and what goes wrong."""
    from playwright.sync_api import Error, sync_playwright

    executable = next((p for p in ("/usr/bin/chromium-headless-shell", "/usr/bin/chromium") if Path(p).exists()), None)
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(
                executable_path=executable, args=["--no-sandbox", "--disable-quic", "--no-first-run"]
            )
        except Error as error:
            pytest.skip(f"no Chromium here: {error}")
        opened = browser.new_page()
        opened.requested, opened.troubles = [], []
        opened.on("request", lambda request: opened.requested.append(request.url))
        opened.on("console", lambda message: opened.troubles.append(message.text))
        opened.on("pageerror", lambda error: opened.troubles.append(str(error)))
        yield opened
        browser.close()


def test_metrics_hold_flat_numbers_intervals_and_gates(good_report: Path) -> None:
    metrics = json.loads((good_report / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["reason"] and metrics["reason_zh"]
    assert all(isinstance(value, int | float) for value in metrics["key"].values())
    wanted = {
        "loss_base",
        "loss_adapter",
        "loss_char_gain",
        "bertscore_f1_base",
        "bertscore_f1_adapter",
        "fidelity_base",
        "fidelity_adapter",
        "clarity_human",
        "clarity_gain",
        "voiced_adapter",
    }
    assert wanted <= set(metrics["key"])
    assert metrics["detail"]["bertscore"]["layer"] == 9
    assert len(metrics["detail"]["bertscore"]["sha256"]) == 64
    shown = program.dagster_metadata(good_report)
    assert shown["verdict"] == metrics["verdict"]
    answers = pl.read_parquet(good_report / "answers.parquet")["answer"].to_list()
    assert not any(len(answer) > 8 and answer in json.dumps(shown, ensure_ascii=False) for answer in answers)


def test_the_page_loads_nothing_and_runs_nothing(bad_report: Path) -> None:
    text = (bad_report / "report.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<link" not in text
    assert not re.search(r"\bsrc\s*=|url\(|@import|srcset", text)
    assert "default-src 'none'" in text
    assert all(href.startswith(("#", "https://www.ptt.cc/")) for href in re.findall(r'href="([^"]*)"', text))


@pytest.mark.browser
def test_hostile_answers_stay_text(publish: Publish, page: Any) -> None:
    folder = publish("hostile", hostile)
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in html
    assert "<img" not in html
    assert "&lt;script&gt;alert(1)" in html
    page.requested.clear()
    page.goto(f"file://{folder}/report.html")
    assert [url for url in page.requested if not url.startswith("file://")] == []
    assert page.troubles == []
    assert "{{ 7*7 }}" in page.locator("#samples ~ .tabs").text_content()


@pytest.mark.browser
def test_a_reader_sees_the_verdict_and_clicks_through(bad_report: Path, page: Any) -> None:
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto(f"file://{bad_report}/report.html")
    assert page.locator("#verdict").get_attribute("data-verdict") == "red"
    assert "不能發布" in page.locator("#verdict").inner_text()
    assert page.locator("#first article").count() == 9
    page.locator("label[for=lang-en]").click()
    assert "Not ready" in page.locator("#verdict").inner_text()
    first = page.locator(".gates li").first
    assert first.locator(".pill").inner_text() == "fail"
    for link in page.locator("nav a").all():
        link.click()
        target = page.locator(link.get_attribute("href"))
        assert target.is_visible()
        assert 0 <= target.bounding_box()["y"] < 900
    labels = page.locator(".tabs > label")
    assert labels.all_inner_texts() == ["[NLP 技術助教]", "[感性感情導師]", "[極品感情嘴替]"]
    labels.nth(1).click()
    assert page.locator(".panel").nth(1).is_visible()
    assert not page.locator(".panel").nth(0).is_visible()
    copied = page.locator("details[data-kind=copied]")
    far = page.locator("details[data-kind^=farthest]")
    assert not far.locator(".case").first.is_visible()
    far.locator("summary").click()
    assert far.locator(".case").first.is_visible()
    assert page.locator("span.en, span.zh").count() > 100
    assert "Words(" not in page.locator("body").text_content()
    assert copied.locator("mark").first.is_visible()
    assert copied.locator("a").first.get_attribute("href").startswith("https://www.ptt.cc/bbs/Test/")
    assert page.locator("svg.curve polyline").count() == 2
    assert page.troubles == []


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_no_width_scrolls_sideways_or_overlaps(bad_report: Path, page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(f"file://{bad_report}/report.html")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for bar in page.locator(".bar").all():
        assert bar.locator(".name").bounding_box()["height"] < 30
    assert page.locator(".tile, .gates li, .bar").count() > 15


def test_iterations_stand_side_by_side(good_report: Path, bad_report: Path, tmp_path: Path) -> None:
    written = write_iteration_report({"persona_v1": bad_report, "persona_v2": good_report}, tmp_path)
    assert "| | Model bad | Model good |" in written.markdown
    assert "| epochs | 3.0 | 3.0 |" in written.markdown
    assert "| peak memory | 2.40 GiB VRAM | 2.40 GiB VRAM |" in written.markdown
    assert "| power | 180 W mean, 0.50 Wh |" in written.markdown
    assert "max_train_test_gap" in written.markdown and "max_verbatim" in written.markdown
    html = written.path.read_text(encoding="utf-8")
    assert html.count('class="sample"') == 6
    assert "⚠" not in html  # one judge, one test set
    again = write_iteration_report({"persona_v1": bad_report, "persona_v2": good_report}, tmp_path)
    assert again == written
    alone = write_iteration_report({"persona_v2": good_report}, tmp_path)
    assert alone.digest != written.digest
    with pytest.raises(ValueError, match="no report to compare"):
        write_iteration_report({}, tmp_path)


def test_runs_that_do_not_compare_say_so(good_report: Path, publish: Publish, tmp_path: Path) -> None:
    other = publish("leaking", leaking)
    path = other / "metrics.json"
    metrics = json.loads(path.read_text(encoding="utf-8"))
    metrics["detail"]["judge"]["digest"] = "another"
    metrics["test"]["digest"] = "another"
    path.write_text(json.dumps(metrics), encoding="utf-8")
    html = write_iteration_report({"a": good_report, "b": other}, tmp_path).path.read_text(encoding="utf-8")
    assert "different judges" in html
    assert "different test sets" in html


def test_a_run_without_voices_takes_nothing_from_the_others(
    good_report: Path, bad_report: Path, publish: Publish, tmp_path: Path
) -> None:
    plain = publish("leaking", leaking)
    path = plain / "metrics.json"
    metrics = json.loads(path.read_text(encoding="utf-8"))
    metrics["detail"]["judge"]["digest"] = metrics["test"]["digest"] = "its own"
    metrics["intervals"]["fidelity_adapter"]["value"] = None
    path.write_text(json.dumps(metrics), encoding="utf-8")
    folders = {"persona_v1": bad_report, "persona_v2": good_report, "capybara_qlora": plain}
    html = write_iteration_report(folders, tmp_path).path.read_text(encoding="utf-8")
    assert html.count('class="sample"') == 6
    assert "⚠" not in html


def test_answers_of_another_adapter_are_not_judged(good_report: Path, tmp_path: Path) -> None:
    """Trained again, not asked again: the new adapter would be released on the old one's answers."""
    root = good_report.parent.parent
    generations = shutil.copytree(root / "generations", tmp_path / "generations")
    settings = json.loads((generations / "settings.json").read_text(encoding="utf-8"))
    (generations / "settings.json").write_text(json.dumps({**settings, "adapter": "former"}), encoding="utf-8")
    job = EvaluateJob.model_validate_json((root / "job.json").read_text(encoding="utf-8"))
    changed = job.model_copy(update={"generations_dir": generations, "out_dir": tmp_path / "reports"})
    with pytest.raises(ValueError, match="answers of adapter former, and adapter is to be judged"):
        program.evaluate(changed, Reporter(None, quiet=True))


def test_only_the_packaged_base_is_called_practice(good_report: Path) -> None:
    metrics = json.loads((good_report / "metrics.json").read_text(encoding="utf-8"))
    for base, practice in (("gemma3-270m", True), ("tiny:llama", False), ("an/other", False)):
        metrics["settings"]["base"] = Base(model=base).model_dump(mode="json")
        assert (PRACTICE in summary(metrics)) is practice
    metrics["settings"]["base"] = Base(model="gemma3-270m").model_dump(mode="json")
    metrics["intervals"]["fidelity_adapter"]["value"] = None
    assert PRACTICE not in summary(metrics), "a chat model is asked for no voice"


def test_numbers_for_people() -> None:
    assert figure(None) == "–"
    assert figure(0.123456) == "0.123"
    assert figure(-0.5) == "−0.5"
    assert figure(0.5, "signed") == "+0.500"
    assert figure(0.256, "percent") == "26 %"
    assert figure(100.0) == "100"
    assert str(marked("a<b>cd", "b>c")) == "a&lt;<mark>b&gt;c</mark>d"
