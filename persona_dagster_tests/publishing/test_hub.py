"""A release laid out, sent to a stand-in of the Hub by the real client, pulled back and verified; and its failures."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from persona_dagster.artifacts import write_json
from persona_dagster.chat.adapters import AdapterError, from_hub
from persona_dagster.config.loading import PACKAGED
from persona_dagster.config.personas import load_personas
from persona_dagster.config.recipes import load_recipe
from persona_dagster.digest import file_digest
from persona_dagster.models.hub import HubError, pull, verify
from persona_dagster.publishing.exports import merge
from persona_dagster.publishing.hub import (
    PUBLIC_FIGURES,
    ReleaseError,
    ReleasePlan,
    guard,
    plan_release,
    release,
)
from persona_dagster.publishing.model_card import FIGURES, write_model_card
from persona_dagster.records import FORGOTTEN
from persona_dagster.settings import Settings
from persona_dagster_tests.chat.conftest import make_adapter
from persona_dagster_tests.chat.serving import Served
from persona_dagster_tests.publishing.hub_stand_in import READER, TOKEN, Hub, build

REPO = "me/persona-lora"
INTERVAL = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 30, "enough": True}
GATE = {
    "name": "min_loss_gain",
    "title": "Finds human answers likelier",
    "verdict": "green",
    "why": "within",
    "bound": "above",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with an adapter and, as training and evaluation write them, the manifest and metrics that belong to it."""
    home = tmp_path_factory.mktemp("home")
    make_adapter(home, "persona_v2", 1, "a" * 32)
    report = {
        "digest": "2" * 32,
        "verdict": "green",
        "gates": [{**GATE, "threshold": 0.0, "value": 0.5, "low": 0.4, "high": 0.6, "n": 30}],
        "intervals": {"fidelity_base": INTERVAL, "fidelity_adapter": {**INTERVAL, "value": 0.9}},
        "test": {"rows": 18, "digest": "3" * 32},
        "run": {"digest": "a" * 32},
    }
    manifest = {
        "digest": "0" * 32,
        "recipe": "persona_v2",
        "train_by_persona": {"mentor": 40, "assistant": 30},
        "test_by_persona": {"mentor": 5},
        "by_source": {"dcard": 40, "notes": 30},
        "largest_jaccard": 0.31,
    }
    for name, content in (("report/metrics.json", report), ("mix/manifest.json", manifest)):
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_text(json.dumps(content), encoding="utf-8")
    return home


def plan(home: Path, out: Path, adapter: Path | None = None, exports: Sequence[Path] = ()) -> ReleasePlan:
    return plan_release(
        load_recipe("persona_v2", PACKAGED, "tiny", "cpu"),
        load_personas(PACKAGED),
        adapter or home / "adapters" / "persona_v2" / ("a" * 32),
        home / "mix",
        home / "report",
        REPO,
        out,
        exports,
    )


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    state = Hub()
    served = Served(build(state))
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    yield state
    served.close()


def test_a_plan_is_what_lies_in_its_folder_and_the_same_twice(made: Path, tmp_path: Path) -> None:
    first, second = plan(made, tmp_path / "a"), plan(made, tmp_path / "b")
    assert first.digest == second.digest == first.folder.name
    assert [file.path for file in first.files] == sorted(path.name for path in first.folder.iterdir())
    assert {"README.md", "release.json", "adapter_model.safetensors", "data_card.md"} <= {f.path for f in first.files}
    assert not {"rows.json", "training_log.jsonl", "train.jsonl"} & {file.path for file in first.files}
    verify(first.folder)


def test_the_card_says_what_was_measured(made: Path, tmp_path: Path) -> None:
    card = plan(made, tmp_path).card.read_text(encoding="utf-8")
    for said in (
        "base_model: tiny:llama",
        "6.200 → 5.100",
        "0.900 (0.400 to 0.600)",
        "**green**",
        "| mentor | 40 | 5 |",
    ):
        assert said in card


def test_dry_by_default_without_token_or_network(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    planned = plan(made, tmp_path)
    released = release(planned)
    assert released.dry_run
    assert released.sent == tuple(file.path for file in planned.files)
    with pytest.raises(ReleaseError, match="HF_TOKEN"):
        release(planned, dry_run=False)


def test_there_and_back(made: Path, tmp_path: Path, hub: Hub) -> None:
    planned = plan(made, tmp_path / "plan")
    released = release(planned, dry_run=False)
    assert hub.refs[REPO][planned.tag] == released.revision == hub.refs[REPO]["main"]
    assert hub.private[REPO]
    asked = [path for _, path in hub.log]
    for endpoint in ("/api/repos/create", f"/{REPO}.git/info/lfs/objects/batch", f"/api/models/{REPO}/commit/main"):
        assert endpoint in asked
    folder = pull(REPO, tmp_path / "pulled", planned.tag).folder
    assert folder.name == released.revision
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {
        p.name: p.read_bytes() for p in planned.folder.iterdir()
    }


def test_an_export_goes_along_and_comes_back(made: Path, tmp_path: Path, hub: Hub) -> None:
    merged = merge(
        made / "adapters" / "persona_v2" / ("a" * 32), load_personas(PACKAGED), made / "models", tmp_path / "w"
    )
    planned = plan(made, tmp_path / "plan", exports=[merged.folder])
    assert "merged/model.safetensors" in [file.path for file in planned.files]
    card = planned.card.read_text(encoding="utf-8")
    assert f'from_pretrained("{REPO}", subfolder="merged")' in card
    assert "Read back by transformers: likeliest token the same at 100.0%" in card
    release(planned, dry_run=False)
    folder = pull(REPO, tmp_path / "pulled", planned.tag).folder
    assert file_digest(folder / "merged" / "model.safetensors") == file_digest(merged.folder / "model.safetensors")


def test_an_export_of_another_adapter_stops_the_plan(made: Path, tmp_path: Path) -> None:
    (tmp_path / "merged").mkdir()
    with pytest.raises(ReleaseError, match="persona export"):
        plan(made, tmp_path / "plan", exports=[tmp_path / "merged"])


def test_the_same_release_twice_is_one_commit(made: Path, tmp_path: Path, hub: Hub) -> None:
    planned = plan(made, tmp_path)
    first, second = release(planned, dry_run=False), release(planned, dry_run=False)
    assert first.revision == second.revision
    assert [method for method, path in hub.log if path.startswith("/lfs/") and method == "PUT"].count("PUT") == len(
        hub.lfs
    )


def test_a_wrong_token_is_named(made: Path, tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = plan(made, tmp_path)
    for token, says in (("hf_wrong", "wrong or expired"), (READER, "no right to write")):
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(HubError, match=says):
            release(planned, dry_run=False)
    assert not hub.repos


def test_no_room_is_named_and_publishes_nothing(made: Path, tmp_path: Path, hub: Hub) -> None:
    hub.quota = 1000
    with pytest.raises(HubError, match="no room left"):
        release(plan(made, tmp_path), dry_run=False)
    assert hub.repos[REPO][hub.refs[REPO]["main"]] == {}


def test_an_interrupted_upload_goes_on(made: Path, tmp_path: Path, hub: Hub) -> None:
    planned = plan(made, tmp_path)
    hub.break_puts = 1
    with pytest.raises(HubError):
        release(planned, dry_run=False)
    assert hub.repos[REPO][hub.refs[REPO]["main"]] == {}
    released = release(planned, dry_run=False)
    assert set(hub.repos[REPO][str(released.revision)]) >= {file.path for file in planned.files}


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "README.md"])
def test_what_was_changed_on_the_way_is_refused(made: Path, tmp_path: Path, hub: Hub, name: str) -> None:
    planned = plan(made, tmp_path / "plan")
    release(planned, dry_run=False)
    hub.tamper = name
    with pytest.raises(HubError, match=name):
        pull(REPO, tmp_path / "pulled", planned.tag)
    assert not [path for path in (tmp_path / "pulled").glob("*") if path.is_dir()]


def test_the_chat_verifies_a_release_and_says_what_is_unverified(
    made: Path, tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(plan(made, tmp_path / "plan"), dry_run=False)
    settings = Settings(home=tmp_path / "home", profile="tiny", hardware="cpu")
    ours = from_hub(REPO, settings)
    assert ours.folder and not (ours.folder / "README.md").exists()  # what a chat needs, verified all the same
    assert ours.title.endswith(", verified)")

    newest = hub.refs[REPO]["main"]
    theirs = {name: blob for name, blob in hub.repos[REPO][newest].items() if name.startswith("adapter_")}
    hub.repos["you/lora"], hub.refs["you/lora"] = {"f" * 40: theirs}, {"main": "f" * 40}
    assert from_hub("you/lora", settings).title == "you/lora (ffffffff, unverified)"
    hub.repos["you/base"], hub.refs["you/base"] = {"f" * 40: {}}, {"main": "f" * 40}
    with pytest.raises(AdapterError, match="holds no adapter"):
        from_hub("you/base", settings)

    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert from_hub(REPO, settings) == ours  # offline: what was pulled
    (ours.folder / "adapter_model.safetensors").write_bytes(b"other weights")
    with pytest.raises(AdapterError, match=r"adapter_model\.safetensors: not what was released"):
        from_hub(REPO, settings)


def test_an_unknown_revision_or_no_network_is_named(
    made: Path, tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    release(plan(made, tmp_path / "plan"), dry_run=False)
    with pytest.raises(HubError, match=REPO):
        pull(REPO, tmp_path, "no-such-tag")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(HubError, match="connection"):
        pull(REPO, tmp_path, "main")


def test_a_plan_that_changed_since_is_not_sent(made: Path, tmp_path: Path, hub: Hub) -> None:
    planned = plan(made, tmp_path)
    planned.card.write_text("something else", encoding="utf-8")
    with pytest.raises(ReleaseError, match="changed since"):
        release(planned, dry_run=False)
    assert not hub.repos


def test_an_adapter_of_another_mix_or_personal_data_stops_the_plan(made: Path, tmp_path: Path) -> None:
    other = tmp_path / "adapter"
    shutil.copytree(made / "adapters" / "persona_v2" / ("a" * 32), other)
    card = json.loads((other / "run_card.json").read_text(encoding="utf-8"))
    (other / "run_card.json").write_text(json.dumps({**card, "base_revision": "ask 0912-345-678"}), encoding="utf-8")
    with pytest.raises(ReleaseError, match="PHONE"):
        plan(made, tmp_path / "out", other)
    (other / "run_card.json").write_text(json.dumps({**card, "mix_digest": "9" * 32}), encoding="utf-8")
    with pytest.raises(ReleaseError, match="trained on mix 9999"):
        plan(made, tmp_path / "out", other)
    assert not list((tmp_path / "out").glob("*"))


def test_the_digits_of_a_figure_are_nobodys_card(made: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(made, home)
    report = json.loads((home / "report/metrics.json").read_text(encoding="utf-8"))
    report["gates"][0]["value"] = 4.844421851525048  # as a number of sixteen digits it has a card's check digit
    (home / "report/metrics.json").write_text(json.dumps(report), encoding="utf-8")
    released = json.loads((plan(home, tmp_path / "out").folder / "run_card.json").read_text(encoding="utf-8"))
    assert released["gates"][0]["value"] == 4.8444


def random_run(draw: random.Random) -> dict[str, Any]:
    """A run card, its report and manifest as they could come out: figures of any size, at any hour, of any digest."""

    def digest() -> str:
        return f"{draw.getrandbits(256):064x}"

    def interval() -> dict[str, Any]:
        low, value, high = sorted(draw.random() for _ in range(3))
        return {"value": value, "low": low, "high": high, "n": draw.randint(0, 10**7), "enough": True}

    finished = datetime.fromtimestamp(draw.randint(1_700_000_000, 2_000_000_000), UTC)
    figures = {name: draw.uniform(0, 10 ** draw.randint(-6, 9)) for name in PUBLIC_FIGURES[:-1]}
    versions = {
        name: ".".join(str(draw.randint(0, 99)) for _ in range(3)) + draw.choice(("", "+cu126", ".dev20260912"))
        for name in ("torch", "transformers", "trl")
    }
    run = {
        **figures, "steps": draw.randint(1, 10**6), "digest": digest(), "mix_digest": digest()[:32],
        "recipe_digest": digest(), "base_model": "me/base",
        "base_revision": digest()[:40], "finished_at": finished.isoformat(timespec="seconds"), "versions": versions,
        "recipe": {"seed": draw.getrandbits(40), "learning_rate": draw.random() / 1000},
    }  # fmt: skip
    gates = [{**GATE, **interval(), "threshold": draw.random()} for _ in range(4)]
    report = {
        "digest": digest()[:32], "verdict": "green", "gates": gates, "test": {"rows": draw.randint(0, 10**7)},
        "intervals": {f"{name}_{side}": interval() for name in FIGURES for side in ("base", "adapter")},
    }  # fmt: skip
    manifest = {
        "digest": digest()[:32], "recipe": "persona_v2", "largest_jaccard": draw.random(),
        "train_by_persona": {"mentor": draw.randint(0, 10**7)}, "test_by_persona": {"mentor": draw.randint(0, 10**6)},
        "by_source": {"dcard": draw.randint(0, 10**7), "notes": draw.randint(0, 10**7)},
    }  # fmt: skip
    return {"run": run, "report": report, "manifest": manifest}


def test_no_figure_digest_or_hour_of_ours_passes_for_a_person(tmp_path: Path) -> None:
    recipe, personas = load_recipe("persona_v2", PACKAGED, "tiny", "cpu"), load_personas(PACKAGED)
    draw = random.Random(23)
    for _ in range(150):
        made = random_run(draw)
        write_json(tmp_path / "run_card.json", {**made["run"], "gates": made["report"]["gates"]})
        card = write_model_card(recipe=recipe, personas=personas, base="me/base", repo_id=REPO, **made)
        (tmp_path / "README.md").write_text(card, encoding="utf-8")
        guard(tmp_path)


@pytest.mark.parametrize("words", ["0912-345-678", "0912.345.678", "0912345678", "a.b@c.tw", "line id: abc_12"])
def test_a_person_in_any_text_of_a_release_stops_it(tmp_path: Path, words: str) -> None:
    write_json(tmp_path / "any.json", {"a": [1.5, {"b": words}]})
    with pytest.raises(ReleaseError, match=r"any\.json, a\[1\]\.b, line 1"):
        guard(tmp_path)
    write_json(tmp_path / "any.json", {words: 1})
    with pytest.raises(ReleaseError, match=r"any\.json"):
        guard(tmp_path)
    (tmp_path / "any.json").rename(tmp_path / "any.md")
    with pytest.raises(ReleaseError, match=r"any\.md"):
        guard(tmp_path)


def test_an_adapter_that_no_report_judged_stops_the_plan(made: Path, tmp_path: Path) -> None:
    """Trained again on the same mix: the former one's green gates are not its own."""
    other = tmp_path / "adapter"
    shutil.copytree(made / "adapters" / "persona_v2" / ("a" * 32), other)
    card = json.loads((other / "run_card.json").read_text(encoding="utf-8"))
    (other / "run_card.json").write_text(json.dumps({**card, "digest": "c" * 32}), encoding="utf-8")
    with pytest.raises(ReleaseError, match="not what the newest report judged, which is aaaaaaaaaaaa"):
        plan(made, tmp_path / "out", other)


def test_an_adapter_that_saw_what_was_forgotten_is_not_released(made: Path, tmp_path: Path) -> None:
    other = tmp_path / "adapter"
    shutil.copytree(made / "adapters" / "persona_v2" / ("a" * 32), other)
    plan(made, tmp_path / "before", other)
    (other / FORGOTTEN).write_text("{}", encoding="utf-8")
    with pytest.raises(ReleaseError, match="forgotten since"):
        plan(made, tmp_path / "out", other)


def test_digests_are_nobodys_handle_or_number(made: Path, tmp_path: Path) -> None:
    other = tmp_path / "adapter"
    shutil.copytree(made / "adapters" / "persona_v2" / ("a" * 32), other)
    card = json.loads((other / "run_card.json").read_text(encoding="utf-8"))
    digest = "ed55db8232 fbc44cf63ba0 0912345678".replace(" ", "")
    (other / "run_card.json").write_text(json.dumps({**card, "base_revision": digest}), encoding="utf-8")
    assert digest in plan(made, tmp_path / "out", other).card.read_text(encoding="utf-8")


def test_a_repository_id_must_be_one(made: Path, tmp_path: Path, hub: Hub) -> None:
    with pytest.raises(HubError, match="owner/name"):
        release(replace(plan(made, tmp_path), repo_id="not an id!"), dry_run=False)
