"""What is installed is pinned with hashes for every environment, and workflows and images are as they should be. No
container daemon answers where this runs: images are read, not built."""

from __future__ import annotations

import re
import runpy
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ENVIRONMENTS: dict[str, str] = runpy.run_path(str(ROOT / "scripts/lock_hashes.py"))["ENVIRONMENTS"]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
LOCKED = re.compile(r"(?P<name>[a-z0-9._-]+)==(?P<version>\S+) --hash=sha256:[0-9a-f]{64}")


def locked(name: str) -> dict[str, str]:
    """Package: version. Raises where a line has no hash."""
    lines = (ROOT / "locks" / f"{name}.txt").read_text(encoding="utf-8").splitlines()[1:]
    found = [LOCKED.fullmatch(line) for line in lines]
    assert all(found), next(line for line, match in zip(lines, found, strict=True) if not match)
    return {canonicalize_name(match["name"]): match["version"] for match in found if match}


def required(extras: str) -> list[Requirement]:
    named = re.findall(r"\w+", extras)
    return [
        Requirement(line)
        for lines in (PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] for extra in named))
        for line in lines
    ]


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_lock_holds_every_requirement_as_it_is_pinned(name: str) -> None:
    held, pins = locked(name), {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if "==" in line and not line.startswith("#"):
            package, _, version = line.partition("==")
            pins[canonicalize_name(package)] = version.strip()
    wanted = required(ENVIRONMENTS[name])
    missing = [str(one) for one in wanted if held.get(canonicalize_name(one.name), "") not in one.specifier]
    missing += [str(one) for one in wanted if canonicalize_name(one.name) not in held]
    assert missing == [], f"run: make lock ({name})"
    plain = {package: version.removesuffix("+cpu") for package, version in held.items()}
    assert {(one, version, pins[one]) for one, version in plain.items() if pins.get(one, version) != version} == set()


@pytest.mark.parametrize(("name", "cuda"), [("cpu", False), ("gpu", True), ("cluster", True)])
def test_torch_is_built_for_what_the_environment_runs_on(name: str, cuda: bool) -> None:
    held = locked(name)
    assert held["torch"].endswith("+cpu") != cuda and ("nvidia-cudnn-cu13" in held) == cuda


def test_locks_of_no_environment_are_not_kept() -> None:
    assert {path.stem for path in (ROOT / "locks").glob("*.txt")} == set(ENVIRONMENTS)


def steps(workflow: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"]
    assert all("runs-on" in job for job in jobs.values())
    return [step for job in jobs.values() for step in job["steps"]]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_is_whole_and_may_do_little(workflow: Path) -> None:
    text = workflow.read_text(encoding="utf-8")
    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}, "the least, raised for the job that needs more"
    for step in steps(workflow):
        assert ("uses" in step) != ("run" in step), step
        if "uses" in step:
            assert re.fullmatch(r"[\w-]+/[\w/-]+@[\w./-]+", step["uses"]), step
        else:
            script = re.sub(r"\$\{\{.*?\}\}", "x", step["run"])
            subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_faults_of_what_is_locked_are_asked_for_each_week_and_listed() -> None:
    text = (ROOT / ".github/workflows/supply-chain.yml").read_text(encoding="utf-8")
    assert yaml.safe_load(text)[True]["schedule"], "`on` is YAML's true"
    runs = "\n".join(step.get("run", "") for step in steps(ROOT / ".github/workflows/supply-chain.yml"))
    assert "pip-audit" in runs and "locks/*.txt" in runs and "cyclonedx-py" in runs


@pytest.mark.parametrize("dockerfile", sorted((ROOT / "deploy").rglob("Dockerfile*")), ids=lambda path: path.name)
def test_an_image_runs_as_an_ordinary_user_on_a_base_that_can_be_pinned(dockerfile: Path) -> None:
    lines = [line.split() for line in dockerfile.read_text(encoding="utf-8").splitlines() if line.strip()]
    users = [words[1] for words in lines if words[0] == "USER"]
    assert users and users[-1] not in ("root", "0")
    assert {words[1] for words in lines if words[0] == "FROM"} == {"${PYTHON}"}
    assert not [words for words in lines if words[0] == "ADD"]
    release = (ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8")
    assert "python=python@$digest" in release and "PYTHON=${{ steps.base.outputs.python }}" in release
