"""A WARC holds every body byte for byte, under headers that name it."""

from __future__ import annotations

import gzip
from pathlib import Path

from persona_dagster.scraping.archive import Archive
from persona_dagster.scraping.warc import export_warc


def test_every_body_is_in_the_warc(scraped: Archive, tmp_path: Path) -> None:
    path = tmp_path / "out" / "mood.warc.gz"
    captures = [one for one in scraped.every("dcard", "mood") if one.kind != "walk"]
    assert export_warc(scraped, "dcard", "mood", path) == len(captures)
    rest, records = gzip.decompress(path.read_bytes()), []
    while rest:
        head, _, after = rest.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        assert first == "WARC/1.1"
        fields = dict(line.split(": ", 1) for line in lines)
        length = int(fields["Content-Length"])
        records.append((fields, after[:length]))
        assert after[length : length + 4] == b"\r\n\r\n"
        rest = after[length + 4 :]
    info, *responses = records
    assert info[0]["WARC-Type"] == "warcinfo"
    bodies = [block.partition(b"\r\n\r\n")[2] for _, block in responses]
    assert bodies == [one.body for one in captures]
    assert [fields["WARC-Target-URI"] for fields, _ in responses] == [one.url for one in captures]
    assert not any(b"cookie" in block.lower().partition(b"\r\n\r\n")[0] for _, block in responses)
