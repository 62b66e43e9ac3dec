import re
from collections.abc import Iterator

import httpx
import pytest

from persona_dagster.sample.content_loader import Content, threads_code
from persona_dagster.sample.http_messages import Request
from persona_dagster.sample.replica import Replica, serve
from persona_dagster.sample.threads_api_site import TOKEN, GraphSite
from persona_dagster.sample.threads_pages import fragments
from persona_dagster.sample.threads_site import MAX_REPLIES, SEARCH_PAGE, pk_of
from persona_dagster.sites.threads.payloads import code_of, parse_threads
from persona_dagster_tests.sample.conftest import threads_item

THREADS, GRAPH = "https://www.threads.com", "https://graph.threads.net"
FIELDS = "id,text,media_type,permalink,timestamp,username,has_replies,is_reply"


@pytest.fixture(scope="module")
def replica() -> Iterator[Replica]:
    replies = [{"user": f"reader{n}", "text": f"回覆 {n}", "likes": n} for n in range(5)]
    items = [threads_item(n, day=n // 5, replies=replies if n == 0 else ()) for n in range(70)]
    items[0] = items[0].model_copy(update={"more": ("還有第二段", "第三段")})
    items[1] = items[1].model_copy(update={"text": None})
    items[2] = items[2].model_copy(update={"deleted_day": 10})
    crowd = [{"user": f"reader{n}", "text": f"擠 {n}"} for n in range(80)]
    items.append(threads_item(99, day=1, replies=crowd))
    with serve(Content({}, {}, {"失戀": items})) as running:
        yield running


def test_robots_refuses_everybody(replica: Replica) -> None:
    text = httpx.get(replica.url(f"{THREADS}/robots.txt")).text
    assert "User-agent: *\nDisallow: /" in text


def test_search_brings_the_newest_in_the_page_and_the_rest_by_its_script(replica: Replica) -> None:
    answer = httpx.get(replica.url(f"{THREADS}/search"), params={"q": "失戀", "serp_type": "default"})
    parsed = parse_threads(answer.content, board="失戀", author_key=str)
    assert parsed.usable and len(parsed.posts) == SEARCH_PAGE and "more_replies" in parsed.flags
    codes = [post.post_id for post in parsed.posts]
    cursor = re.search(r'data-cursor="(\d+)"', answer.text)[1]  # type: ignore[index]
    while cursor:
        form = {"query": "失戀", "after": cursor, "lsd": "x", "doc_id": "1"}
        result = httpx.post(replica.url(f"{THREADS}/graphql/query"), data=form).json()["data"]["searchResults"]
        codes += [edge["node"]["thread"]["thread_items"][0]["post"]["code"] for edge in result["edges"]]
        cursor = result["page_info"]["end_cursor"]
    visible = [item for item in replica.content.threads["失戀"] if item.deleted_day is None]
    assert sorted(codes) == sorted(threads_code(pk_of(item)) for item in visible)
    assert httpx.post(replica.url(f"{THREADS}/graphql/query"), data={"query": "失戀"}).status_code == 400


def test_a_post_page_holds_self_thread_replies_and_strangers(replica: Replica) -> None:
    item = replica.content.threads["失戀"][0]
    code = threads_code(pk_of(item))
    assert code_of(str(pk_of(item))) == code
    page = httpx.get(replica.url(f"{THREADS}/@{item.user}/post/{code}")).content
    parsed = parse_threads(page, board="失戀", author_key=str, code=code)
    assert parsed.complete, parsed.why
    texts = [post.text_raw.split("\n")[0] for post in parsed.posts]
    assert texts == ["一句話 0", "還有第二段", "第三段", *(f"回覆 {n}" for n in range(5))], (
        "no related posts among them"
    )
    assert page.index(b"relatedPosts") < page.index(b"BarcelonaPostPageDirectQueryRelayPreloader")
    assert {post.thread_id for post in parsed.posts} == {code}


def test_an_account_shows_its_own_posts(replica: Replica) -> None:
    item = replica.content.threads["失戀"][0]
    page = httpx.get(replica.url(f"{THREADS}/@{item.user}"))
    parsed = parse_threads(page.content, board=f"@{item.user}", author_key=str)
    assert [post.post_id for post in parsed.posts] == [threads_code(pk_of(item))] and parsed.complete
    assert httpx.get(replica.url(f"{THREADS}/@nobody.at.all")).status_code == 404


def test_pictures_without_words_have_a_null_caption(replica: Replica) -> None:
    item = replica.content.threads["失戀"][1]
    page = httpx.get(replica.url(f"{THREADS}/@{item.user}/post/{threads_code(pk_of(item))}"))
    assert '"caption":null' in page.text
    assert "no_text" in parse_threads(page.content, board="失戀", author_key=str).posts[0].flags


def test_many_replies_end_at_a_log_in(replica: Replica) -> None:
    item = replica.content.threads["失戀"][-1]
    page = httpx.get(replica.url(f"{THREADS}/@{item.user}/post/{threads_code(pk_of(item))}")).content
    parsed = parse_threads(page, board="失戀", author_key=str)
    assert parsed.outcome == "login_wall" and len(parsed.posts) == MAX_REPLIES


def test_a_deleted_post_is_gone(replica: Replica) -> None:
    item = replica.content.threads["失戀"][2]
    assert httpx.get(replica.url(f"{THREADS}/@{item.user}/post/{threads_code(pk_of(item))}")).status_code == 404


def test_fragments_are_the_text() -> None:
    text = "看 @some.one 說的 #失戀 http://example.org/a 就這樣"
    kinds = [piece["fragment_type"] for piece in fragments(text)]
    assert "".join(piece["plaintext"] for piece in fragments(text)) == text
    assert kinds == ["plaintext", "mention", "plaintext", "tag", "plaintext", "link", "plaintext"]


def test_the_api_pages_through_a_search(replica: Replica) -> None:
    base = replica.rewrites[GRAPH] + "/v1.0"
    query = {"q": "失戀", "fields": FIELDS, "limit": "30", "access_token": TOKEN}
    rows, url, posts = [], f"{base}/keyword_search", 0
    answer = httpx.get(url, params=query)
    while True:
        parsed = parse_threads(answer.content, board="失戀", author_key=str)
        assert parsed.complete
        posts += len(parsed.posts)
        rows += answer.json()["data"]
        after = answer.json()["paging"]["cursors"]["after"]
        if "next" not in answer.json()["paging"]:
            break
        answer = httpx.get(url, params=query | {"after": after})
    assert len({row["id"] for row in rows}) == len(rows) == posts == 70
    assert all("owner" not in row for row in rows)
    some = httpx.get(url, params=query | {"since": "2026-09-10", "limit": "100"}).json()["data"]
    assert 0 < len(some) < 70 and all(row["timestamp"] >= "2026-09-10" for row in some)
    assert httpx.get(url, params=query | {"q": "沒有這個詞"}).json() == {"data": []}


def test_the_api_refuses_as_the_real_one_does(replica: Replica) -> None:
    base = replica.rewrites[GRAPH] + "/v1.0"
    for token in ("", "old"):
        error = httpx.get(f"{base}/me", params={"access_token": token})
        assert error.status_code == 400 and error.json()["error"]["code"] == 190
    bearer = {"authorization": f"Bearer {TOKEN}"}
    assert httpx.get(f"{base}/me", headers=bearer).json()["username"]
    assert httpx.get(f"{base}/keyword_search", headers=bearer).json()["error"]["code"] == 100
    assert httpx.get(f"{base}/123/conversation", headers=bearer).json()["error"]["code"] == 10
    fresh = httpx.get(f"{replica.rewrites[GRAPH]}/refresh_access_token", headers=bearer).json()
    assert fresh["expires_in"] == 60 * 86400


def test_only_queries_with_a_result_cost_quota(replica: Replica) -> None:
    site = GraphSite(replica.content, replica.clock, quota=2)

    def ask(word: str) -> int:
        target = f"/v1.0/keyword_search?q={word}&access_token={TOKEN}"
        return site.respond(Request("GET", target, {})).status

    assert [ask("x"), ask("失戀"), ask("x"), ask("失戀")] == [200, 200, 200, 200]
    assert ask("失戀") == 429
    usage = site.respond(Request("GET", f"/v1.0/me/threads_publishing_limit?access_token={TOKEN}", {}))
    assert b'"quota_usage":2' in usage.body
