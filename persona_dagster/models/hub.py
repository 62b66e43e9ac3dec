"""What is taken from the Hugging Face Hub: a repository at one commit, verified where its release says how.

The chat pulls through here; a release is sent with the same client, and the same words for what goes wrong.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from persona_dagster.artifacts import Versions
from persona_dagster.digest import file_digest

MANIFEST = "release.json"  # of a release of this project: {"files": [{"path", "size", "sha256"}], "adapter": digest}
ADAPTER = ("*.json", "*.safetensors", "*.jinja")  # what a chat needs: no pickles, no code
AROUND = (MANIFEST, ".gitattributes")  # what no manifest lists


class HubError(RuntimeError):
    """A repository of the Hub that cannot be had, written or trusted; the message names the cause and the cure."""


class NoConnectionError(HubError):
    """The Hub cannot be reached."""


@dataclass(frozen=True, slots=True)
class Pulled:
    """A repository as it was at `commit`. `verified`: every file is as the manifest of its release says."""

    folder: Path
    commit: str
    verified: bool


def pull(repo_id: str, out_dir: Path, revision: str | None = None, only: Sequence[str] | None = None) -> Pulled:
    """`repo_id` in `out_dir/<commit>/`, whole or the files that match `only`; downloaded once.

    `revision` is a tag or a commit. Without one: what the main branch is now, and offline the newest pulled before.

    Raises:
        HubError: no such repository, no access; or a file of a release that is missing, added or changed.
    """
    pulled = Versions(out_dir, "adapter_config.json")
    api = hub_api(os.environ.get("HF_TOKEN"))
    try:
        with clear_errors(repo_id):
            commit = str(api.repo_info(repo_id, revision=revision or "main").sha)
            if pulled.find(commit) is None:
                with pulled.publishing(commit) as fresh:
                    api.snapshot_download(repo_id, revision=commit, local_dir=fresh, allow_patterns=only)
                    shutil.rmtree(fresh / ".cache", ignore_errors=True)
                    if not (fresh / pulled.holds).is_file():
                        raise HubError(f"{repo_id}: holds no adapter (no {pulled.holds}); name one that PEFT made")
                    verify(fresh, only)
    except NoConnectionError:
        if revision is not None or (newest := pulled.latest()) is None:
            raise
        commit = newest.name
    folder = out_dir / commit
    return Pulled(folder, commit, verify(folder, only))


def verify(folder: Path, only: Sequence[str] | None = None) -> bool:
    """Whether the folder is a release of this project, whose files (those that match `only`) are as its manifest says.

    Raises `HubError` naming the first that is not."""
    if not (folder / MANIFEST).is_file():
        return False
    from huggingface_hub.utils import filter_repo_objects

    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        listed = {str(entry["path"]): entry["sha256"] for entry in manifest["files"]}
    except (ValueError, KeyError, TypeError) as error:
        raise HubError(f"{MANIFEST}: no manifest of a release ({error}); do not use it") from error
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    for name in filter_repo_objects(listed, allow_patterns=list(only) if only else None):
        if ".." in PurePosixPath(name).parts or name not in found or file_digest(found[name]) != listed[name]:
            raise HubError(f"{name}: {'not what was released' if name in found else 'missing'}; do not use it")
    if added := sorted(set(found) - set(listed) - set(AROUND)):
        raise HubError(f"{added[0]}: not part of the release; do not use it")
    return True


def hub_api(token: str | None) -> Any:
    """The Hub's client, at HF_ENDPOINT where one is set."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token or False)


@contextmanager
def clear_errors(repo_id: str) -> Iterator[None]:
    """Errors of the Hub as one that names the cure."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    try:
        yield
    except HubError:
        raise
    except HFValidationError as error:
        raise HubError(f"{repo_id!r} is no repository id; write owner/name") from error
    except HfHubHTTPError as error:
        status, said = error.response.status_code, (error.server_message or str(error)).strip()
        raise HubError(
            f"{repo_id}: {_cure(status, said, isinstance(error, RepositoryNotFoundError))} ({status}: {said})"
        ) from error
    except ValueError as error:  # what the client makes of errors of the LFS endpoint
        raise HubError(f"{repo_id}: the Hub did not take a file; {_cure(0, str(error), False)} ({error})") from error
    except (httpx.TransportError, OSError, RuntimeError) as error:  # RuntimeError: a file whose upload broke off
        raise NoConnectionError(
            f"{repo_id}: the connection broke ({error}); run it again, what has arrived is not sent twice"
        ) from error


def _cure(status: int, said: str, unknown: bool) -> str:
    if any(word in said.lower() for word in ("storage", "quota", "limit")) or status in (402, 413, 507):
        return "no room left: free some storage there, or release to another account"
    if status == 401 or unknown:
        return "HF_TOKEN is wrong or expired, or there is no such repository"
    if status == 403:
        return "HF_TOKEN has no right to write there"
    return "the Hub refused; try again later"
