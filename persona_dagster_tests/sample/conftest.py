"""A small replica of two boards a site, and the packaged one."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from persona_dagster.sample.content_loader import Content, DcardItem, PttItem, ThreadsItem, load
from persona_dagster.sample.replica import Replica, serve


def ptt_item(number: int, **values: object) -> PttItem:
    base = {
        "id": f"p{number}",
        "day": number % 20,
        "time": "12:00",
        "author": "writer",
        "nick": "筆",
        "category": "閒聊",
        "title": f"第 {number} 篇",
        "body": f"這是第 {number} 篇的內容。",
    }
    return PttItem.model_validate(base | values)


def dcard_item(number: int, **values: object) -> DcardItem:
    base = {"id": f"d{number}", "day": number % 20, "time": "13:00", "gender": "F", "title": f"標題 {number}"}
    return DcardItem.model_validate(base | {"content": f"內容 {number}"} | values)


def threads_item(number: int, **values: object) -> ThreadsItem:
    base = {
        "id": f"t{number}",
        "day": number % 20,
        "time": "14:00",
        "user": f"user{number}",
        "text": f"一句話 {number}",
    }
    return ThreadsItem.model_validate(base | values)


@pytest.fixture(scope="session")
def packaged() -> Content:
    return load()


@pytest.fixture(scope="module")
def replica(packaged: Content) -> Iterator[Replica]:
    with serve(packaged) as running:
        yield running


@pytest.fixture(scope="module")
def adult(replica: Replica) -> Iterator[httpx.Client]:
    """A client that has passed the over18 gate."""
    with httpx.Client(cookies={"over18": "1"}) as client:
        yield client
