"""Nothing leads outside the sites' hosts: not a scheme, a port, a user, a look-alike, a redirect, or a browser."""

from __future__ import annotations

import pytest

from persona_dagster.crawl.browser import Browser
from persona_dagster.crawl.http import HttpFetcher
from persona_dagster.crawl.transport import Transport
from persona_dagster.crawl.url_allowlist import ForbiddenUrlError, UrlPolicy
from persona_dagster.records import Outcome
from persona_dagster.sample.faults import Rule, Scenario
from persona_dagster.sample.replica import Replica, serve

LIVE = UrlPolicy(["www.ptt.cc"], Transport())


@pytest.mark.parametrize(
    "url",
    [
        "http://www.ptt.cc/bbs/",
        "https://ptt.cc/bbs/",
        "https://www.ptt.cc.evil.example/",
        "https://www.ptt.cc:8443/",
        "https://user:password@www.ptt.cc/",
        "https://www.ptt.cc@evil.example/",
        "https://evil.example/#https://www.ptt.cc/",
        "https://127.0.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "//www.ptt.cc/",
        "https://[::1/",
        "https://www.ptt.cc:99999/",
        "",
    ],
)
def test_refused(url: str) -> None:
    with pytest.raises(ForbiddenUrlError):
        LIVE.actual(url)


def test_allowed_and_rewritten() -> None:
    assert LIVE.actual("https://www.ptt.cc/bbs/x") == "https://www.ptt.cc/bbs/x"
    sample = UrlPolicy(["www.ptt.cc"], Transport({"https://www.ptt.cc": "http://127.0.0.1:8090"}))
    assert sample.actual("https://www.ptt.cc/bbs/x") == "http://127.0.0.1:8090/bbs/x"
    for other in ("http://127.0.0.1:8091/", "http://127.0.0.1/", "http://localhost:8090/"):
        with pytest.raises(ForbiddenUrlError):
            sample.check(other)


def test_http_stops_at_a_redirect_outside(replica: Replica) -> None:
    with serve(scenario=Scenario([Rule("private", "ptt/bbs", times=None)])) as running:
        transport = Transport(running.rewrites)
        fetched = HttpFetcher(UrlPolicy(["www.ptt.cc"], transport), transport, 1 << 20).fetch(
            "https://www.ptt.cc/bbs/x"
        )
    assert fetched.outcome is Outcome.BLOCKED
    assert "outside the policy" in fetched.why


@pytest.mark.browser
def test_a_browser_resolves_nothing_else(replica: Replica) -> None:
    rules = [
        Rule("private", "ptt/bbs/Hate", times=None),
        Rule("private", "ptt/bbs/Boy", location="http://127.0.0.1:1/"),
    ]
    with serve(scenario=Scenario(rules)) as running:
        transport = Transport(running.rewrites)
        policy = UrlPolicy(["www.ptt.cc"], transport)
        with Browser(policy, transport, 1 << 20) as browser:
            fetched = browser.goto("https://www.ptt.cc/bbs/Hate/index.html")
            assert fetched.outcome in (Outcome.BLOCKED, Outcome.TIMEOUT)
            assert fetched.body == b""
            fetched = browser.goto("https://www.ptt.cc/bbs/DataScience/index.html")
            assert fetched.ok
            assert browser.fetch("https://www.ptt.cc/bbs/Hate/index.html").outcome in (
                Outcome.BLOCKED,
                Outcome.TRUNCATED,
            )


@pytest.mark.browser
def test_a_dead_browser_is_an_outcome_and_comes_back(replica: Replica) -> None:
    transport = Transport(replica.rewrites)
    with Browser(UrlPolicy(["www.ptt.cc"], transport), transport, 8 << 20) as browser:
        url = "https://www.ptt.cc/bbs/DataScience/index.html"
        assert browser.goto(url).ok
        browser._browser.close()  # as when it crashes
        assert browser.goto(url).outcome is Outcome.TIMEOUT
        assert browser.deaths == 1
        assert browser.goto(url).ok
        browser._browser.close()
        assert browser.fetch(url).outcome is Outcome.TIMEOUT
        assert browser.fetch(url).ok, "in-page fetches go on from the page that was open"


@pytest.mark.browser
def test_a_bomb_does_not_reach_the_driver() -> None:
    with serve(scenario=Scenario([Rule("gzip_bomb", "ptt/bbs/Hate", times=None)])) as running:
        transport = Transport(running.rewrites)
        with Browser(UrlPolicy(["www.ptt.cc"], transport), transport, 1 << 20) as browser:
            assert browser.goto("https://www.ptt.cc/bbs/DataScience/index.html").ok
            fetched = browser.fetch("https://www.ptt.cc/bbs/Hate/index.html")
            assert fetched.outcome is Outcome.TOO_LARGE
            assert browser.deaths == 0
