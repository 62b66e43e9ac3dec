"""What the live layer adds: the operator's proxy, contact and browser profile, and `persona doctor --live`."""

from __future__ import annotations

import base64
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from persona_dagster.archive.archive import Archive
from persona_dagster.commands.crawling import accounts, app, look
from persona_dagster.config.sources import Sources
from persona_dagster.crawl.browser import Browser
from persona_dagster.crawl.crawl_board import crawl_board
from persona_dagster.crawl.http import HttpFetcher
from persona_dagster.crawl.transport import Transport
from persona_dagster.crawl.url_allowlist import UrlPolicy
from persona_dagster.records import Source
from persona_dagster.sample.faults import Rule, Scenario
from persona_dagster.sample.replica import Replica, serve
from persona_dagster.settings import Settings

PAGE = "https://www.ptt.cc/bbs/Boy-Girl/index.html"
BASIC = "Basic " + base64.b64encode(b"me:pass word").decode()


class ProxyServer(socketserver.ThreadingTCPServer):
    """Asks for a password, notes what it was asked for, and reaches nothing."""

    allow_reuse_address, daemon_threads = True, True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ProxyHandler)
        self.asked: list[tuple[str, str]] = []  # target and credentials

    @property
    def url(self) -> str:
        return f"http://me:pass%20word@127.0.0.1:{self.server_address[1]}"


class ProxyHandler(socketserver.StreamRequestHandler):
    server: ProxyServer

    def handle(self) -> None:
        while first := self.rfile.readline().decode().split():
            headers = {}
            while line := self.rfile.readline().decode().strip():
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            credentials = headers.get("proxy-authorization", "")
            self.server.asked.append((first[1], credentials))
            if credentials == BASIC:
                self.wfile.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            else:
                self.wfile.write(
                    b'HTTP/1.1 407 Proxy\r\nProxy-Authenticate: Basic realm="x"\r\nContent-Length: 0\r\n\r\n'
                )


@pytest.fixture
def proxy() -> Iterator[ProxyServer]:
    with ProxyServer() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_http_goes_by_the_proxy(proxy: ProxyServer) -> None:
    transport = Transport(proxy=proxy.url)
    assert "pass" not in repr(transport)
    assert not HttpFetcher(UrlPolicy(["www.ptt.cc"], transport), transport, 1 << 20).fetch(PAGE).ok
    assert proxy.asked == [("www.ptt.cc:443", BASIC)]


def test_the_browser_goes_by_the_proxy_to_the_sites_hosts_alone(proxy: ProxyServer) -> None:
    transport = Transport(proxy=proxy.url)
    with Browser(UrlPolicy(["www.ptt.cc"], transport), transport, 1 << 20) as browser:
        assert not browser.goto(PAGE).ok
        assert ("www.ptt.cc:443", BASIC) in proxy.asked
        browser.page.set_content('<img src="https://elsewhere.example/x.png"><img src="https://www.ptt.cc/y.png">')
        browser.wait(500)
    assert {target for target, _ in proxy.asked} == {"www.ptt.cc:443"}


@pytest.mark.parametrize("wrong", ["socks5://x:1", "http://host", "me:secret@host:1", "http://me:secret@host:x"])
def test_a_wrong_proxy_is_said_without_its_password(wrong: str) -> None:
    with pytest.raises(ValueError) as error:
        Transport(proxy=wrong).proxy_server()
    assert "secret" not in str(error.value)


def test_settings_reach_the_transport(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, proxy="http://host:1", contact="me@example.org")
    transport = Transport.live(settings)
    assert (transport.proxy, transport.profile) == ("http://host:1", settings.browser_dir)
    assert "+me@example.org;" in transport.user_agent
    with pytest.raises(ValueError, match="PERSONA_CONTACT"):
        Transport.live(settings.model_copy(update={"contact": "a\r\nHost: b"}))


def test_a_profile_keeps_the_session(replica: Replica, tiny: Sources, tmp_path: Path) -> None:
    transport = Transport(replica.rewrites, profile=tmp_path / "browser")
    policy = UrlPolicy(tiny.ptt.hosts, transport)
    for passed in (False, True):
        with Browser(policy, transport, 8 << 20) as browser:
            assert ("kept" in browser.cookies()) is passed
            origin = next(iter(policy.origins))
            browser.page.context.add_cookies([{"name": "kept", "value": "1", "url": origin, "expires": 4_000_000_000}])
            assert browser.goto("https://www.ptt.cc/bbs/Boy-Girl/index.html").status == 200


@pytest.mark.parametrize(("source", "board"), [("ptt", "Boy-Girl"), ("dcard", "mood"), ("threads", "失戀")])
def test_doctor_says_what_a_site_shows(source: Source, board: str, tiny: Sources) -> None:
    site = tiny.site(source)
    sources = tiny.model_copy(update={source: site.model_copy(update={"boards": [board]})})
    with serve() as running:
        line = look(source, sources, Transport(running.rewrites))
    assert f"posts of {board} seen" in line
    with serve(scenario=Scenario([Rule("challenge", f"{source}/(?!robots)", times=None)])) as running:
        line = look(source, sources, Transport(running.rewrites))
    assert "challenge" in line
    assert "PERSONA_CDP_URL" in line


def test_doctor_looks_at_what_the_operator_has_set(tmp_path: Path, proxy: ProxyServer) -> None:
    settings = Settings(home=tmp_path, proxy=proxy.url, cdp_url="http://127.0.0.1:9")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("THREADS_TOKEN", raising=False)
        token, cdp, by = accounts(settings)
    assert "no THREADS_TOKEN" in token and "app review" in token
    assert "no browser at http://127.0.0.1:9" in cdp
    assert "answers" in by and "pass" not in by
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THREADS_TOKEN", "secret-token")
        token = accounts(settings.model_copy(update={"proxy": "http://127.0.0.1:9"}))[0]
    assert "60 days, 2200 queries left" in token and "secret" not in token


def test_the_frontier_says_when_a_backfill_ends(
    replica: Replica, tiny: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERSONA_HOME", str(tmp_path))
    monkeypatch.setattr("persona_dagster.commands.crawling.console.width", 200)
    archive, transport = Archive(Settings(home=tmp_path).raw_dir), Transport(replica.rewrites)

    def passed(most: int) -> str:
        pace = tiny.ptt.pace.model_copy(update={"max_requests": most})
        few = tiny.model_copy(update={"ptt": tiny.ptt.model_copy(update={"pace": pace})})
        crawl_board("ptt", "Boy-Girl", few, archive, transport=transport, log=lambda _: None)
        found = CliRunner().invoke(app, ["frontier"])
        assert found.exit_code == 0, found.output
        return found.output

    assert "passes, one a night" in (first := passed(30)), first
    assert "reached" in (last := passed(5000)), last
