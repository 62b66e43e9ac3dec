"""A release to the Hugging Face Hub: laid out in a folder first, shown, then sent on request.

What is sent is an explicit list: weights, tokenizer, cards, personas, curves and a manifest with every sha256.
Row ids, logs and texts of the mix stay here. `models/hub.py` pulls a release back and verifies it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from persona_dagster.artifacts import (
    ArtifactError,
    Metrics,
    MixManifest,
    NotPublishedError,
    Record,
    RunCard,
    Versions,
    write_json,
)
from persona_dagster.config.personas import Personas
from persona_dagster.config.recipes import Recipe
from persona_dagster.corpus import privacy
from persona_dagster.corpus.personal_data import second_look
from persona_dagster.digest import file_digest, json_digest
from persona_dagster.models.hub import MANIFEST, HubError, clear_errors, hub_api
from persona_dagster.publishing.exports import Export, find_export
from persona_dagster.publishing.model_card import write_data_card, write_model_card
from persona_dagster.records import FORGOTTEN

WEIGHTS = ("adapter_model.safetensors", "adapter_config.json")
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
)
# Digests, times and measured figures are ours; their digits must not pass for anyone's number. The digits of 09:12:34
# UTC are a mobile's, and so are those of two neighbouring figures of a table.
OURS = re.compile(
    r"\b(?:[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64})\b"
    r"|\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)?(?!\w)"
    r"|(?<![\w.])(?:0|[1-9]\d{0,3})\.\d{1,4}(?![\w.])",
    re.ASCII,
)
PUBLIC_RUN = ("digest", "recipe", "recipe_digest", "mix_digest", "base_model", "base_revision", "dtype", "finished_at")
PUBLIC_FIGURES = (
    "eval_loss_before",
    "eval_loss_after",
    "train_loss",
    "steps",
    "seconds",
    "peak_memory_gib",
    "versions",
)


class ReleaseError(HubError):
    """A release that cannot be made or sent; the message names the cause and the cure."""


@dataclass(frozen=True, slots=True)
class PlannedFile:
    path: str  # in the repository
    size: int  # bytes
    sha256: str


@dataclass(frozen=True, slots=True)
class ReleasePlan:
    """`folder` holds exactly what would be sent. `digest` is over its files: the version of the release."""

    repo_id: str
    tag: str
    digest: str
    folder: Path
    files: tuple[PlannedFile, ...]

    @property
    def card(self) -> Path:
        return self.folder / "README.md"

    def markdown(self) -> str:
        rows = [f"| `{file.path}` | {file.size:,} | `{file.sha256[:16]}…` |" for file in self.files]
        head = f"To `{self.repo_id}`, tag `{self.tag}`:\n\n| file | bytes | sha256 |\n|---|---:|---|"
        return "\n".join([head, *rows])


@dataclass(frozen=True, slots=True)
class Released:
    """What was sent, or, dry, what would have been."""

    dry_run: bool
    url: str | None
    revision: str | None  # the commit on the Hub
    sent: tuple[str, ...]


def plan_release(  # noqa: PLR0917  (three folders, in the order of the graph)
    recipe: Recipe,
    personas: Personas,
    adapter_dir: Path,
    mix_dir: Path,
    report_dir: Path,
    repo_id: str,
    out_dir: Path,
    exports: Sequence[Path] = (),
) -> ReleasePlan:
    """Writes `out_dir/<digest>/` as it would stand on the Hub. No network, no token.

    `exports` are folders of `persona export` whose files go along under their folder's name (merged weights, GGUF).

    Raises:
        ReleaseError: something is missing, was made from another mix, is not what the report judged, saw what was
            forgotten since, or holds personal data or a local path.
    """
    if (adapter_dir / FORGOTTEN).exists():
        raise ReleaseError(f"{adapter_dir.name}: saw rows that were forgotten since; materialise mix and lora_adapter")
    run, report, manifest = (
        _record(RunCard, adapter_dir),
        _record(Metrics, report_dir),
        _record(MixManifest, mix_dir),
    )
    if run["mix_digest"] != manifest["digest"]:
        raise ReleaseError(
            f"{adapter_dir.name}: trained on mix {run['mix_digest'][:12]}, while {mix_dir.name[:12]} is the newest; "
            "materialise lora_adapter and eval_report again"
        )
    judged = (report.get("run") or {}).get("digest")
    if judged != run["digest"]:
        raise ReleaseError(
            f"{adapter_dir.name}: not what the newest report judged, which is {str(judged)[:12]}; "
            "materialise eval_report again"
        )
    base = _json(adapter_dir / "adapter_config.json")["base_model_name_or_path"]
    releases = Versions(out_dir, MANIFEST)
    with releases.staging() as folder:
        for name in (*WEIGHTS, *TOKENIZER, "curves.png"):
            if (adapter_dir / name).is_file():
                shutil.copy2(adapter_dir / name, folder / name)
        _need(folder, WEIGHTS, adapter_dir)
        made = [_export(export, run) for export in exports]
        for export in exports:
            shutil.copytree(export, folder / export.name, copy_function=_link)
        public = {name: run[name] for name in (*PUBLIC_RUN, *PUBLIC_FIGURES) if name in run}
        public |= {"verdict": report["verdict"], "gates": report["gates"]}
        write_json(folder / RunCard.FILE, _rounded(public))
        write_json(folder / "personas.json", _public_personas(personas))
        card = write_model_card(
            recipe=recipe,
            personas=personas,
            base=base,
            run=run,
            report=report,
            manifest=manifest,
            repo_id=repo_id,
            exports=made,
        )
        (folder / "README.md").write_text(card, encoding="utf-8")
        (folder / "data_card.md").write_text(write_data_card(manifest), encoding="utf-8")
        guard(folder)
        files = _files(folder)
        write_json(folder / MANIFEST, {"files": [asdict(file) for file in files], "adapter": run["digest"]})
        digest = json_digest([[file.path, file.sha256] for file in files])
        target = releases.publish(folder, digest, point=False)
    tag = f"{recipe.name.replace('_', '-')}-{digest[:12]}"
    return ReleasePlan(repo_id, tag, digest, target, tuple(_files(target)))


def release(plan: ReleasePlan, dry_run: bool = True, private: bool = True) -> Released:
    """Sends `plan` in one commit and tags it; dry, it only says what it would send, and reads no token.

    Sending again sends what is not there yet; the same release twice makes no second commit.

    Raises:
        HubError: no token, no right, no room, no network; nothing is half-published, since a commit is whole.
    """
    paths = tuple(file.path for file in plan.files)
    if dry_run:
        return Released(True, None, None, paths)
    if not (token := os.environ.get("HF_TOKEN")):
        raise ReleaseError(
            "no HF_TOKEN in the environment; make one with write access on huggingface.co/settings/tokens"
        )
    api = hub_api(token)
    for file in plan.files:
        if file_digest(plan.folder / file.path) != file.sha256:
            raise ReleaseError(f"{plan.folder / file.path} changed since it was planned; plan the release again")
    with clear_errors(plan.repo_id):
        url = api.create_repo(plan.repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=plan.repo_id, folder_path=plan.folder, commit_message=f"Release {plan.tag}", revision="main"
        )
        api.create_tag(plan.repo_id, tag=plan.tag, revision=commit.oid, exist_ok=True)
    return Released(False, str(url), commit.oid, paths)


def _record(kind: type[Record], folder: Path) -> dict[str, Any]:
    try:
        return kind.read(folder).model_dump(mode="json", exclude_unset=True)
    except (NotPublishedError, ArtifactError) as error:
        raise ReleaseError(str(error)) from error


def _json(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ReleaseError(f"{path}: not there; materialise the asset that makes it") from error
    except json.JSONDecodeError as error:
        raise ReleaseError(f"{path}: no JSON ({error})") from error
    return value


def _export(folder: Path, run: Mapping[str, Any]) -> Export:
    made = find_export(folder, run["digest"])
    if made is None:
        raise ReleaseError(f"{folder}: no export of adapter {run['digest'][:12]} there; make it: persona export")
    return made


def _link(source: str, target: str) -> None:
    """Weights are gigabytes: a second name for the same bytes, or a copy on another disk."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _need(folder: Path, names: Sequence[str], source: Path) -> None:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ReleaseError(f"{source}: no {' and no '.join(missing)}; materialise lora_adapter")


def _rounded(value: Any) -> Any:
    """Figures to what was measured of them. Their sixteen digits are noise, and one in ten such numbers passes for a
    card's."""
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value


def _public_personas(personas: Personas) -> Mapping[str, Any]:
    return {
        name: {"tag": persona.tag, "title": persona.title, "system_prompt": persona.system_prompt}
        for name, persona in personas.personas.items()
    }


def guard(folder: Path) -> None:
    """Nothing that a person could be found by, and no path of this machine, in any text that leaves it.

    Raises:
        ReleaseError: naming file, place and kind, and nothing of what was found.
    """
    home = str(Path.home())
    for path in sorted(folder.rglob("*")):
        if path.suffix not in (".md", ".json", ".jinja", ".txt") or path.name.startswith(
            ("tokenizer", "vocab", "merges")
        ):
            continue
        text = path.read_text(encoding="utf-8")
        for place, whole in _strings(json.loads(text)) if path.suffix == ".json" else [("", text)]:
            where, words = ", ".join(filter(None, (path.name, place))), OURS.sub("", whole)
            if found := privacy.find(words):
                start, _, kind = found[0]
                line = f"line {words.count(chr(10), 0, start) + 1}"
                raise ReleaseError(f"{where}, {line}: holds what looks like personal data ({kind})")
            if kind := next(second_look.identifiers(words), ""):
                raise ReleaseError(f"{where}: a second detector finds what looks like personal data ({kind}) in it")
            if home != "/" and f"{home}/" in words:
                raise ReleaseError(f"{where}: names a path of this machine under {home}")


def _strings(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Keys and strings of JSON with where they stand. Its numbers are figures of ours, and nobody's."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, list):
        for number, one in enumerate(value):
            yield from _strings(one, f"{place}[{number}]")
    elif isinstance(value, dict):
        for key, one in value.items():
            yield place, key
            yield from _strings(one, f"{place}.{key}".lstrip("."))


def _files(folder: Path) -> list[PlannedFile]:
    return [
        PlannedFile(path.relative_to(folder).as_posix(), path.stat().st_size, file_digest(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
