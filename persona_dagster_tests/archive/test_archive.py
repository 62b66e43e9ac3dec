"""The archive keeps what it was given, whole or not at all, and nothing that was forgotten."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from persona_dagster.archive.archive import Archive, ArchiveDamagedError
from persona_dagster.digest import sha256
from persona_dagster.records import Capture, Outcome

START = datetime(2026, 9, 1, tzinfo=UTC)


def capture(key: str, body: str, hours: float = 0, outcome: Outcome = Outcome.OK, kind: str = "article") -> Capture:
    data = body.encode()
    return Capture(
        source="ptt",
        board="Hate",
        kind=kind,
        key=key,
        url=f"https://www.ptt.cc/bbs/Hate/{key}.html",
        fetched_at=START + timedelta(hours=hours),
        status=200 if outcome is Outcome.OK else 404,
        outcome=outcome,
        headers={"Content-Type": "text/html", "Set-Cookie": "over18=1", "Authorization": "Bearer x"},
        body=data,
        sha256=sha256(data),
    )


@pytest.fixture(params=["path", "memory"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Archive:
    return Archive(tmp_path / ".hidden" / "raw" if request.param == "path" else f"memory://{tmp_path}")


def latest(archive: Archive) -> dict[str, str]:
    return {one.key: one.body.decode() for one in archive.latest("ptt", "Hate")}


def test_the_newest_whole_capture_of_each_key(archive: Archive) -> None:
    assert archive.append([capture("a", "one"), capture("b", "two"), capture("a", "new", 1)]) == 3
    assert latest(archive) == {"a": "new", "b": "two"}
    assert archive.boards("ptt") == ["Hate"]
    assert archive.boards("dcard") == []
    found = archive.newest("ptt", "Hate", "article", "a")
    assert found is not None
    assert (found.body, found.fetched_at) == (b"new", START + timedelta(hours=1))


def test_what_could_act_as_the_operator_is_not_stored(archive: Archive) -> None:
    secret = replace(capture("a", "one"), url="https://graph.threads.net/v1.0/x?access_token=SECRET&q=1")
    archive.append([secret])
    (stored,) = archive.latest("ptt", "Hate")
    assert stored.headers == {"content-type": "text/html"}
    assert "SECRET" not in stored.url


def test_the_digest_is_over_meaning(archive: Archive) -> None:
    archive.append([capture("a", "one"), capture("b", "two")])
    version = archive.digest("ptt", "Hate")
    archive.append([capture("a", "one", 5), capture("index", "changes", 5, kind="listing")])
    assert archive.digest("ptt", "Hate") == version
    archive.append([capture("b", "edited", 6)])
    assert archive.digest("ptt", "Hate") != version


def test_unchanged_bodies_are_stored_once(archive: Archive) -> None:
    body = "".join(chr(0x4E00 + n * 37 % 20_000) for n in range(20_000))  # does not compress away
    archive.append([capture("a", body)])
    size = sum(archive.fs.size(part) for part in archive.parts("ptt", "Hate"))
    archive.append([capture("a", body, hours) for hours in range(1, 9)])
    assert sum(archive.fs.size(part) for part in archive.parts("ptt", "Hate")) < 1.3 * size
    assert latest(archive) == {"a": body}


def test_one_404_is_no_deletion_and_two_are(archive: Archive) -> None:
    archive.append([capture("a", "one"), capture("b", "two")])
    version = archive.digest("ptt", "Hate")
    archive.append([capture("a", "404", 1, Outcome.GONE)])
    assert latest(archive) == {"a": "one", "b": "two"}
    assert archive.digest("ptt", "Hate") == version
    archive.append([capture("a", "404", 2, Outcome.GONE)])
    assert latest(archive) == {"b": "two"}
    assert archive.digest("ptt", "Hate") != version
    archive.append([capture("a", "back", 3)])
    assert latest(archive) == {"a": "back", "b": "two"}


def test_forgotten_stays_forgotten(archive: Archive) -> None:
    archive.append([capture("a", "SECRET words"), capture("b", "two"), capture("a", "SECRET again", 1)])
    assert archive.forget("ptt", "Hate", ["a"], "asked for") == 2
    assert latest(archive) == {"b": "two"}
    assert archive.append([capture("a", "SECRET words", 9)]) == 0
    assert latest(archive) == {"b": "two"}
    assert all(b"SECRET" not in one.body for one in archive.every("ptt", "Hate"))


def test_a_listing_that_still_shows_a_forgotten_post_is_not_kept(archive: Archive) -> None:
    archive.append([capture("M.1.A", "SECRET words"), capture("M.2.A", "two")])
    archive.forget("ptt", "Hate", ["M.1.A"], "asked for")
    shows = capture("index", '<a href="/bbs/Hate/M.1.A.html">SECRET words</a>', 5, kind="listing")
    other = capture("index1", '<a href="/bbs/Hate/M.2.A.html">two</a>', 5, kind="listing")
    assert archive.append([shows, other]) == 1
    assert all(b"SECRET" not in one.body for one in archive.every("ptt", "Hate"))


def test_rewriting_keeps_references_whole(archive: Archive) -> None:
    archive.append([capture("a", "shared")])
    archive.append([capture("b", "shared", 1)])  # a reference to the body of a
    assert archive.rewrite("ptt", "Hate", lambda one: one.key == "a") == 1
    assert latest(archive) == {"b": "shared"}
    assert archive.verify("ptt", "Hate") == []


def test_compaction_changes_no_meaning(archive: Archive) -> None:
    for hour in range(12):
        archive.append([capture(f"k{n}", f"body {n} {hour // 4}", hour + n / 100) for n in range(20)])
    version, before = archive.digest("ptt", "Hate"), latest(archive)
    assert archive.compact("ptt", "Hate") < 12
    assert (archive.digest("ptt", "Hate"), latest(archive)) == (version, before)
    assert archive.verify("ptt", "Hate") == []
    kept = archive.histories("ptt", "Hate")["article", "k0"].sightings
    assert len({seen.sha256 for seen in kept}) == 3  # every version is there
    assert len(kept) <= 6


def test_state_is_the_parts_alone(archive: Archive, tmp_path: Path) -> None:
    archive.append([capture("a", "one"), capture("b", "two")])
    again = Archive(tmp_path / ".hidden" / "raw" if "hidden" in archive.root else f"memory://{tmp_path}")
    assert again.digest("ptt", "Hate") == archive.digest("ptt", "Hate")


def test_a_flipped_bit_is_seen(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.append([capture(f"k{n}", f"body {n}" * 50) for n in range(20)])
    (part,) = tmp_path.rglob("*.parquet")
    whole = part.read_bytes()
    seen = 0
    for at in range(4, len(whole) - 8, max(1, len(whole) // 60)):
        part.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        fresh = Archive(tmp_path)
        try:
            bodies = {one.key: one.body for one in fresh.latest("ptt", "Hate")}
        except (ArchiveDamagedError, ValueError, KeyError):
            seen += 1
            continue
        assert bodies == {f"k{n}": f"body {n}".encode() * 50 for n in range(20)}, f"byte {at} passed unseen"
    assert seen > 20


def test_a_part_that_was_cut_short_is_named(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.append([capture("a", "one")])
    (part,) = tmp_path.rglob("*.parquet")
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(ArchiveDamagedError, match="backup"):
        list(Archive(tmp_path).latest("ptt", "Hate"))


@pytest.mark.parametrize("board", ["", "../x", "a/b", ".hidden"])
def test_a_board_cannot_leave_the_archive(archive: Archive, board: str) -> None:
    with pytest.raises(ValueError, match="board"):
        archive.append([replace(capture("a", "one"), board=board)])


def test_a_body_that_is_not_its_hash_is_refused(archive: Archive) -> None:
    with pytest.raises(ValueError, match="sha256"):
        archive.append([replace(capture("a", "one"), sha256="0" * 64)])
