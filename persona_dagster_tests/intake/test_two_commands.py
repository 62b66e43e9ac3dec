"""Every format on one desk, through `persona import` and `persona build`, as a user calls them: the posts of each file,
and (soak) its place in the mix where its rows carry a voice.

Made by the real tools: tables by Polars, xlsxwriter, sqlite3 and datasets; archives by Python; notebooks by nbformat,
PDF by matplotlib; pages by the replica, kept by a real Chromium (MHTML, and Playwright's recorder for HAR), and what
its Dcard answers as JSON.
After their documented schema: LINE, DiscordChatExporter 2.43, Zeeschuimer, Obsidian, DOCX (ECMA-376). The Hub is a
server on loopback in the Hub's own protocol, read by the real `datasets`.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path

import polars as pl
import pytest
import zstandard

from persona_dagster.config.loading import PACKAGED
from persona_dagster.config.personas import load_personas
from persona_dagster.corpus.ledger import row_ledger
from persona_dagster.sample.content_loader import dcard_id, ptt_file, threads_code
from persona_dagster.sample.faults import Rule, Scenario
from persona_dagster.sample.replica import Replica, serve
from persona_dagster.sample.threads_site import pk_of
from persona_dagster.settings import Settings
from persona_dagster.sites.threads.payloads import code_of
from persona_dagster_tests.intake.test_formats import ANSWER, NOTES, zipped

RECIPE = """
title: Own data on the smallest model
backend: trl
base: {model: "tiny:llama", dtype: float32}
quantisation: {scheme: none}
lora: {r: 4, alpha: 8}
mix: {text: clean, strategy: none, accept_shortfall: a file of each format}
"""
UNTIL = "mix" if os.environ.get("PERSONA_SOAK") == "1" else "posts"  # the mix costs an encoder and half a minute more
PERSONAS = load_personas(PACKAGED).personas
LINES = iter([*PERSONAS["mentor"].examples, *PERSONAS["mouthpiece"].examples])
NUMBERS = count(900_000_000)
COLUMNS = ("來源", "類型", "看板", "編號", "父文章", "內容")


def rows() -> list[dict[str, str]]:
    """A post and a comment that has a voice, of its own for each file: alike they would be copies."""
    asked, answer = next(LINES)
    post, comment = str(next(NUMBERS)), f"c{next(NUMBERS)}"
    return [
        dict(zip(COLUMNS, ("dcard", "post", "心情", post, "", asked), strict=True)),
        dict(zip(COLUMNS, ("dcard", "comment", "心情", comment, post, answer), strict=True)),
    ]


def csv(sign: str = ",", codec: str = "utf-8") -> bytes:
    return pl.DataFrame(rows()).write_csv(separator=sign).encode(codec)


def lines() -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows())


def polars(writer: str, **how: object) -> bytes:
    out = io.BytesIO()
    getattr(pl.DataFrame(rows()), writer)(out, **how)
    return out.getvalue()


def archive(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    zipped(out, members)  # type: ignore[arg-type]
    return out.getvalue()


def line_chat() -> bytes:
    asked, answer = next(LINES)
    said = f"10:00\t小明\t{asked}\n10:01\t小華\t{answer}\n"
    return f"[LINE] 與小明的聊天記錄\n儲存日期：2024/03/05 22:10\n\n2024/03/04（一）\n{said}".encode()


def discord(kind: str) -> bytes:
    turns = list(zip(("1", "2"), next(LINES), strict=True))
    if kind == "csv":
        frame = [
            {"AuthorID": who, "Author": who, "Date": f"2024-03-04T10:0{who}:00.0000000+00:00", "Content": text}
            | {"Attachments": "", "Reactions": ""}
            for who, text in turns
        ]
        return pl.DataFrame(frame).write_csv().encode()
    messages = [
        {"id": who, "type": "Default", "timestamp": f"2024-03-04T10:0{who}:00.000+00:00", "content": text}
        | {"author": {"id": who, "name": who, "isBot": False}}
        for who, text in turns
    ]
    about = {"guild": {"id": "1", "name": "NLP"}, "channel": {"id": "2", "name": "help"}}
    return json.dumps(about | {"messages": messages}).encode()


def zeeschuimer() -> bytes:
    (asked, answer), root = next(LINES), next(NUMBERS)
    said = {root: ("one", asked), root + 1: ("two", answer)}
    data = [
        {"pk": str(pk), "code": code_of(str(pk)), "user": {"username": who}, "caption": {"text": text}}
        for pk, (who, text) in said.items()
    ]
    items = [one | {"taken_at": 1776427215 + at, "like_count": 3} for at, one in enumerate(data)]
    items[0]["text_post_app_info"] = {"is_reply": False}
    items[1]["text_post_app_info"] = {"is_reply": True, "reply_to_author": {"username": "one"}}
    about = {"source_platform": "threads.net", "timestamp_collected": 1776427300000}
    return b"".join(json.dumps(about | {"item_id": one["pk"], "data": one}).encode() + b"\n" for one in items)


def capybara() -> bytes:
    turns = [{"role": "user", "content": "What is a gradient?"}, {"role": "assistant", "content": f"A slope. {ANSWER}"}]
    return json.dumps({"source": "Own", "messages": turns, "num_turns": 2}).encode() + b"\n"


@dataclass(frozen=True)
class Format:
    """What a file gives: rows in the ledger, or notes; whether a persona is to learn from it."""

    rows: int
    voice: bool = True


TABLE, CHAT = Format(2), Format(2)
TABLES = {
    "a.jsonl": lines,
    "a.ndjson": lines,
    "a.json": lambda: json.dumps(rows(), indent=1).encode(),
    "nested.json": lambda: json.dumps({"articles": rows()}).encode(),
    "a.csv": csv,
    "big5.csv": lambda: csv(codec="cp950"),
    "gb18030.csv": lambda: csv(codec="gb18030"),
    "utf16.csv": lambda: csv(codec="utf-16"),
    "bom.csv": lambda: csv(codec="utf-8-sig"),
    "semicolon.csv": lambda: csv(";"),
    "a.tsv": lambda: csv("\t"),
    "a.parquet": lambda: polars("write_parquet"),
    "a.arrow": lambda: polars("write_ipc"),
    "a.xlsx": lambda: polars("write_excel"),
    "a.csv.gz": lambda: gzip.compress(csv()),
    "a.csv.xz": lambda: lzma.compress(csv()),
    "a.csv.bz2": lambda: bz2.compress(csv()),
    "a.jsonl.zst": lambda: zstandard.compress(lines()),
    "a.zip": lambda: archive({"inner/a.csv": csv(), "README.txt": "說明在此".encode("cp950")}),
}
CHATS = {"line.txt": line_chat, "discord.json": lambda: discord("json"), "discord.csv": lambda: discord("csv")}
PAGES = ("ptt.html", "threads.html", "ptt.mhtml", "recorded.har", "pages.zip", "dcard.json", "dcard.mhtml")
FORMATS: dict[str, Format] = {
    **dict.fromkeys((*TABLES, "a.sqlite", "hf_folder", "hub"), TABLE),
    **dict.fromkeys(CHATS, CHAT),
    "zeeschuimer.ndjson": Format(2, voice=False),  # an item names no parent: who is answered is not known
    "capybara.jsonl": Format(1, voice=False),  # its dialogues go to recipes of that kind
    **dict.fromkeys(PAGES, Format(1, voice=False)),
    **dict.fromkeys(NOTES, Format(1)),
}


def sqlite(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"CREATE TABLE posts ({', '.join(f'{name} TEXT' for name in COLUMNS)})")
    connection.executemany("INSERT INTO posts VALUES (?, ?, ?, ?, ?, ?)", [tuple(row.values()) for row in rows()])
    connection.commit()
    connection.close()


def pages(folder: Path, replica: Replica) -> None:
    """Two pages as a real Chromium keeps them; the addresses are the sites', what answers is the replica."""
    import httpx
    from playwright.sync_api import Route, sync_playwright

    from persona_dagster.crawl.browser import find_chromium

    item = next(item for item in replica.content.threads["職場"] if item.day < 15 and item.replies)
    articles = [one for one in replica.content.ptt["Boy-Girl"] if one.day < 15 and not one.shape][:4]
    urls = [f"https://www.ptt.cc/bbs/Boy-Girl/{ptt_file('Boy-Girl', article)}.html" for article in articles]
    threads_url = f"https://www.threads.com/@{item.user}/post/{threads_code(pk_of(item))}"

    told = [item for item in replica.content.dcard["mood"] if item.day < 10][:2]
    dcard = [dcard_id("mood", item) for item in told]

    def answer(route: Route) -> None:
        site = renders if "dcard" in route.request.url else replica
        got = httpx.get(site.url(route.request.url), headers={"sec-fetch-mode": "navigate"})
        route.fulfill(status=got.status_code, content_type=got.headers["content-type"], body=got.content)

    # As is reported for 2026: the server renders a post into its page.
    scenario = Scenario([Rule("rendered", "dcard/f/", times=None)])
    with serve(replica.content, replica.clock, scenario) as renders, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium())
        context = browser.new_context(record_har_path=folder / "recorded.har", java_script_enabled=False)
        page = context.new_page()
        page.route("**/*", answer)

        def mhtml(name: str) -> None:
            kept = context.new_cdp_session(page).send("Page.captureSnapshot", {"format": "mhtml"})
            (folder / name).write_text(kept["data"], encoding="utf-8", newline="")

        page.goto(urls[0])
        (folder / "ptt.html").write_text(page.content(), encoding="utf-8")
        page.goto(urls[1])
        (folder / "pages.zip").write_bytes(archive({"deep/er/ptt.html": page.content().encode()}))
        page.goto(urls[2])
        mhtml("ptt.mhtml")
        page.goto(f"https://www.dcard.tw/f/mood/p/{dcard[0]}")
        mhtml("dcard.mhtml")
        page.goto(urls[3])  # stands in the recording alone
        context.close()
        browser.close()
    (folder / "threads.html").write_bytes(httpx.get(replica.url(threads_url)).content)
    with httpx.Client(headers={"sec-fetch-mode": "navigate"}) as reader:
        reader.get(replica.url(f"https://www.dcard.tw/f/mood/p/{dcard[1]}"))  # gives the session its cookie
        payload = reader.get(replica.url(f"https://www.dcard.tw/service/api/v2/posts/{dcard[1]}"))
    (folder / "dcard.json").write_bytes(payload.content)


@contextmanager
def hub(name: str, body: bytes) -> Iterator[str]:
    """The Hub's own protocol for a data set of one Parquet file."""
    sha, path = "0" * 40, "data/train-00000-of-00001.parquet"
    entry = {"type": "file", "path": path, "size": len(body), "oid": "1" * 40}
    about = {"id": name, "sha": sha, "siblings": [{"rfilename": path}], "private": False, "gated": False, "tags": []}

    class Hub(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def answer(self, *, whole: bool = True) -> None:
            asked, status = self.path.partition("?")[0], 200
            if asked.endswith(f"/resolve/{sha}/{path}"):
                data = body
            elif "/tree/" in asked:
                data = json.dumps([entry] if asked.endswith((sha, "/data")) else []).encode()
            elif "/paths-info/" in asked:
                self.rfile.read(int(self.headers["Content-Length"]))
                data = json.dumps([entry]).encode()
            elif asked.startswith(f"/api/datasets/{name}"):
                data = json.dumps(about).encode()
            else:
                data, status = b"{}", 404
            self.send_response(status)
            headers = {"Content-Length": str(len(data)), "ETag": f'"{entry["oid"]}"', "X-Repo-Commit": sha}
            for key, value in (headers | ({"X-Error-Code": "EntryNotFound"} if status == 404 else {})).items():
                self.send_header(key, value)
            self.end_headers()
            if whole:
                self.wfile.write(data)

        def do_GET(self) -> None:
            self.answer()

        def do_POST(self) -> None:
            self.answer()

        def do_HEAD(self) -> None:
            self.answer(whole=False)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, replica: Replica) -> Settings:
    """The desk, and the two commands."""
    from datasets import Dataset

    folder = tmp_path_factory.mktemp("two")
    desk = folder / "desk"
    desk.mkdir()
    for name, make in (TABLES | CHATS).items():
        (desk / name).write_bytes(make())
    (desk / "zeeschuimer.ndjson").write_bytes(zeeschuimer())
    (desk / "capybara.jsonl").write_bytes(capybara())
    sqlite(desk / "a.sqlite")
    Dataset.from_list(rows()).save_to_disk(str(desk / "hf_folder"))
    pages(desk, replica)
    for number, (name, write) in enumerate(NOTES.items()):
        (desk / f"kind{number}").mkdir()
        write(desk / f"kind{number}" / name)
    settings = Settings(home=folder / "home", archive_url=None)
    (settings.config_dir / "recipes").mkdir(parents=True)
    (settings.config_dir / "recipes" / "mine.yaml").write_text(RECIPE, encoding="utf-8")
    with hub("acme/ptt_Salary", polars("write_parquet")) as endpoint:
        about = {"PERSONA_HOME": str(settings.home), "PERSONA_HARDWARE": "cpu"}
        env = os.environ | about | {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "hf")}
        for command in (["import", "--consent", str(desk), "acme/ptt_Salary"], ["build", "mine", "--until", UNTIL]):
            done = subprocess.run(
                [sys.executable, "-m", "persona_dagster.cli", *command],
                env=env,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{command[0]}: {done.stdout[-3000:]} {done.stderr[-3000:]}"
    return settings


@pytest.fixture(scope="module")
def ledger(home: Settings) -> pl.DataFrame:
    return row_ledger(home, "mine")


@pytest.mark.browser
@pytest.mark.parametrize("name", FORMATS)
def test_posts_of_every_format_and_a_place_in_the_mix(ledger: pl.DataFrame, name: str) -> None:
    wanted = FORMATS[name]
    place = rf"[/_]{re.escape(name)}(?:[!/]|$)"
    if name in NOTES:  # a note is named by its board: its folders where two have one name
        place = "/qa$" if name == "qa.jsonl" else f"kind{list(NOTES).index(name)}-"
    if name == "hub":
        place = "acme__ptt_Salary/train.parquet"
    mine = ledger.filter(pl.col("file").str.contains(place))
    parsed = mine.filter(pl.col("doc_id").is_not_null())
    assert parsed.height >= wanted.rows or name == "capybara.jsonl", mine
    if name.startswith("dcard"):
        assert set(parsed["board"]) == {"mood"}, "the page and the payload name their forum"
    if wanted.voice and UNTIL == "mix":
        assert parsed["bucket"].is_in(["train", "validation", "test"]).all(), mine
