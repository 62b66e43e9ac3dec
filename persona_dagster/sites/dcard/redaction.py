"""Cuts comments out of an archived Dcard payload: they become hidden ones, which keep their floor and have no text."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from persona_dagster.sites.dcard.payloads import NEXT_DATA
from persona_dagster.sites.json_validation import depth_bounded, load_json
from persona_dagster.sites.parser_results import MalformedError, decode

KEPT = ("id", "postId", "parentId", "createdAt", "updatedAt", "floor")


def cut(body: bytes, *, ids: Collection[str]) -> bytes | None:
    """The payload without the text and author of these comments; None where it cannot be read."""
    try:
        source = decode(body)
        page = NEXT_DATA.search(source) if source.lstrip().startswith("<") else None
        value = load_json(page[1] if page else source)
        with depth_bounded():
            fresh = json.dumps(_hidden(value, ids), ensure_ascii=False, separators=(",", ":"))
    except MalformedError:
        return None
    if page:
        fresh = source[: page.start(1)] + fresh.replace("</", "<\\/") + source[page.end(1) :]
    return fresh.encode()


def _hidden(value: Any, ids: Collection[str]) -> Any:
    if isinstance(value, list):
        return [_hidden(item, ids) for item in value]
    if not isinstance(value, dict):
        return value
    if "floor" in value and str(value.get("id")) in ids:
        return {key: value[key] for key in KEPT if key in value} | {"content": "", "hidden": True}
    return {key: _hidden(item, ids) for key, item in value.items()}
