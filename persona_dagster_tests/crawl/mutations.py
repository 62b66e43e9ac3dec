"""Ways in which a page can come damaged, for the tests of honesty: each is one seeded change of some bytes."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

Mutation = Callable[[bytes, random.Random], bytes]


def _span(body: bytes, rng: random.Random) -> tuple[int, int]:
    length = max(1, int(min(len(body) / 2, 10 ** rng.uniform(0, 5))))
    start = rng.randrange(len(body))
    return start, min(len(body), start + length)


def truncate(body: bytes, rng: random.Random) -> bytes:
    return body[: rng.randrange(len(body))]


def drop(body: bytes, rng: random.Random) -> bytes:
    start, end = _span(body, rng)
    return body[:start] + body[end:]


def duplicate(body: bytes, rng: random.Random) -> bytes:
    start, end = _span(body, rng)
    return body[:end] + body[start:end] + body[end:]


def move(body: bytes, rng: random.Random) -> bytes:
    start, end = _span(body, rng)
    rest = body[:start] + body[end:]
    at = rng.randrange(len(rest) + 1)
    return rest[:at] + body[start:end] + rest[at:]


def rename(body: bytes, rng: random.Random) -> bytes:
    """A class, a key or an attribute gets another name, once or everywhere."""
    names = re.findall(rb'class="([^"]+)"|"([A-Za-z_]+)":|\b(id)=', body)
    if not names:
        return body + b"x"
    name = next(filter(None, rng.choice(names)))
    return body.replace(name, b"x" + name, rng.choice([1, -1]))


def reencode(body: bytes, rng: random.Random) -> bytes:
    text = body.decode("utf-8", "replace")
    encoding = rng.choice(["utf-16", "big5", "cp1252", "utf-8-sig"])
    if encoding == "utf-8-sig":
        at = rng.randrange(len(body))
        return body[:at] + bytes([rng.choice([0, 0x80, 0xFF, 0xC3])]) + body[at:]
    return text.encode(encoding, "replace")


def nest(body: bytes, rng: random.Random) -> bytes:
    at, depth = rng.randrange(len(body)), rng.choice([1, 3, 100, 20_000])
    return body[:at] + rng.choice([b"<div>", b"<span>", b"[", b'{"a":', b"</div>", b"}"]) * depth + body[at:]


def flip(body: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(body))
    return body[:at] + bytes([body[at] ^ (1 << rng.randrange(8))]) + body[at + 1 :]


def splice_rows(body: bytes, rng: random.Random) -> bytes:
    """The hardest: whole rows go, or come twice, cut exactly at the same place in each."""
    marks = [m.start() for m in re.finditer(rb'<div class="push">|<div class="r-ent">|\{"id":|\{"post":', body)]
    if len(marks) < 3:
        return drop(body, rng)
    first, second = sorted(rng.sample(marks, 2))
    offset = rng.randrange(200)
    first, second = first + offset, second + offset
    return body[:first] + body[second:] if rng.random() < 0.5 else body[:second] + body[first:]


MUTATIONS: tuple[Mutation, ...] = (truncate, drop, duplicate, move, rename, reencode, nest, flip, splice_rows)
