"""Cuts posts out of an archived Threads page or payload: they become ones that the page names and does not show."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from typing import Any

from persona_dagster.sites.json_validation import depth_bounded, load_json
from persona_dagster.sites.parser_results import MalformedError, decode
from persona_dagster.sites.threads.payloads import LENGTH, MARKERS, PERMALINK, SCRIPT, is_post, payloads_of

KEPT = ("pk", "id", "code", "taken_at")


def cut(body: bytes, *, ids: Collection[str]) -> bytes | None:
    """The page without these posts (by code) and the names of those who wrote them; None where it cannot be read."""
    try:
        source = decode(body)
        if not source.lstrip().startswith("<"):
            return _dumped(load_json(source), ids).encode()

        def script(found: re.Match[str]) -> str:
            attributes, content = found.groups()
            if not any(marker in content for marker in MARKERS):
                return found[0]
            fresh = _dumped(load_json(content), ids).replace("</", "<\\/")
            stated = LENGTH.sub(f'data-content-len="{len(fresh)}"', attributes)
            return f"<script{stated}>{fresh}</script>"

        return SCRIPT.sub(script, source).encode()
    except MalformedError:
        return None


def accounts(body: bytes) -> dict[str, str]:
    """Account by code of every post that stands in a page or payload: those of other threads, which are offered below
    its own and are no rows, and quoted ones too; none of a page that cannot be read."""
    try:
        with depth_bounded():
            return dict(_posts(payloads_of(decode(body))))
    except MalformedError:
        return {}


def _posts(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        code = (value.get("code") or _api_code(value)) if is_post(value) else None
        if isinstance(code, str):
            user = value.get("user")
            yield code, str((user if isinstance(user, dict) else value).get("username") or "")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _posts(item)


def _dumped(value: Any, ids: Collection[str]) -> str:
    names: set[str] = set()
    with depth_bounded():
        fresh = json.dumps(_unavailable(value, ids, names), ensure_ascii=False, separators=(",", ":"))
    for name in names:
        fresh = re.sub(rf"(?<![A-Za-z0-9_.]){re.escape(name)}(?![A-Za-z0-9_.]*[A-Za-z0-9_])", "forgotten", fresh)
    return fresh


def _unavailable(value: Any, ids: Collection[str], names: set[str]) -> Any:
    if isinstance(value, list):
        kept = [item for item in value if not (isinstance(item, dict) and _api_code(item) in ids)]
        names |= {str(item["username"]) for item in value if item not in kept and item.get("username")}
        return [_unavailable(item, ids, names) for item in kept]
    if not isinstance(value, dict):
        return value
    if is_post(value) and value.get("code") in ids:
        user = value.get("user") or {}
        names |= {str(user["username"])} if user.get("username") else set()
        shown = {key: value[key] for key in KEPT if key in value}
        return shown | {"user": {"username": "forgotten"}, "text_post_app_info": {"is_post_unavailable": True}}
    return {key: _unavailable(item, ids, names) for key, item in value.items()}


def _api_code(row: dict[str, Any]) -> str | None:
    found = PERMALINK.fullmatch(str(row.get("permalink") or ""))
    return found[1] if found else None
