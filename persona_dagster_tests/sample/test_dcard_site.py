from collections.abc import Iterator

import httpx
import orjson
import pytest

from persona_dagster.sample.clock import Clock
from persona_dagster.sample.content_loader import Content, dcard_id
from persona_dagster.sample.dcard_site import COMMENT_PAGE, LIST_PAGE, DcardSite
from persona_dagster.sample.http_messages import Request
from persona_dagster.sample.replica import Replica, serve
from persona_dagster.sites.dcard.payloads import parse_dcard
from persona_dagster_tests.sample.conftest import dcard_item

DCARD = "https://www.dcard.tw"
BROWSER = {"sec-fetch-mode": "navigate"}


@pytest.fixture(scope="module")
def replica() -> Iterator[Replica]:
    comments = [{"text": f"留言 {n}", "likes": n} for n in range(50)]
    comments[3] = {"text": "不見了", "hidden": True}
    items = [dcard_item(n, day=n // 3, comments=comments if n == 0 else ()) for n in range(40)]
    items.append(dcard_item(50, day=2, deleted_day=10))
    with serve(Content({}, {"mood": items}, {})) as running:
        yield running


@pytest.fixture
def session(replica: Replica) -> Iterator[httpx.Client]:
    """A client that has opened the forum's page as a browser does."""
    with httpx.Client(base_url=replica.rewrites[DCARD], headers=BROWSER) as client:
        assert client.get("/f/mood").status_code == 200
        yield client


def state(page: str) -> dict[str, str]:
    return orjson.loads(page.split('id="__STATE__" type="application/json">')[1].split("</script>", maxsplit=1)[0])


def test_a_plain_client_is_challenged(replica: Replica) -> None:
    for path in ("/f/mood", "/service/api/v2/posts/1", "/service/api/v2/forums/mood/posts"):
        answer = httpx.get(replica.url(DCARD + path))
        assert answer.status_code == 403 and "Just a moment" in answer.text
        assert answer.headers["cf-mitigated"] == "challenge"
    forged = httpx.get(replica.url(f"{DCARD}/service/api/v2/posts/1"), cookies={"dcard_session": "guess"})
    assert forged.status_code == 403
    assert "Disallow: /emails/activate" in httpx.get(replica.url(f"{DCARD}/robots.txt")).text


def test_the_keys_that_the_page_learns_lead_to_every_post_once(replica: Replica, session: httpx.Client) -> None:
    first = state(session.get("/f/mood").text)
    key, found = first["pageKey"], []
    while key:
        query = {"listKey": first["listKey"], "pageKey": key, "offset": len(found)}
        answer = session.get("/service/api/v2/globalPaging/page", params=query).json()
        chunk = [item["post"] for item in answer["widgets"][0]["forumList"]["items"]]
        assert len(chunk) <= LIST_PAGE and all("content" not in post for post in chunk)
        found += [post["id"] for post in chunk]
        key = answer["nextKey"]
    expected = [dcard_id("mood", item) for item in replica.content.dcard["mood"] if item.deleted_day is None]
    assert found == sorted(expected, reverse=True)
    for wrong in (
        {"listKey": first["listKey"], "pageKey": "15"},
        {"listKey": "f_latest_x", "pageKey": first["pageKey"]},
    ):
        assert session.get("/service/api/v2/globalPaging/page", params=wrong).status_code == 400


def test_the_classic_list_goes_back_by_id(session: httpx.Client) -> None:
    first = session.get("/service/api/v2/forums/mood/posts", params={"limit": 10}).json()
    second = session.get("/service/api/v2/forums/mood/posts", params={"limit": 10, "before": first[-1]["id"]}).json()
    assert len(first) == len(second) == 10
    assert first[-1]["id"] > second[0]["id"]


def test_a_post_and_all_its_comments(replica: Replica, session: httpx.Client) -> None:
    id_ = dcard_id("mood", replica.content.dcard["mood"][0])
    post = session.get(f"/service/api/v2/posts/{id_}")
    parsed = parse_dcard(post.content, board="mood", author_key=str)
    assert parsed.complete and parsed.posts[0].text_raw == "內容 0" and parsed.posts[0].url == f"{DCARD}/f/mood/p/{id_}"
    rows, key = [], ""
    while key is not None:
        query = {"sort": "oldest"} | ({"nextKey": key} if key else {})
        answer = session.get(f"/service/api/v3/posts/{id_}/comments", params=query).json()
        assert len(answer["items"]) <= COMMENT_PAGE
        rows, key = rows + answer["items"], answer["nextKey"]
    floors = [row["floor"] for row in rows]
    assert len(rows) == 50 and floors == sorted(floors) and max(floors) > 50, "floors have gaps"
    hidden = [row for row in rows if row["hidden"]]
    assert len(hidden) == 1 and not {"content", "gender", "likeCount"} & hidden[0].keys()
    second = session.get(f"/service/api/v2/posts/{id_}/comments", params={"limit": 100, "after": floors[9]}).json()
    assert second == rows[10:]
    assert parse_dcard(orjson.dumps(rows), board="mood", author_key=str).usable


def test_floors_that_comments_point_at_stay() -> None:
    comments = [{"text": f"留言 {n}"} for n in range(40)] + [{"text": "B41 說得對"}]
    item = dcard_item(1, comments=comments)
    site = DcardSite(Content({}, {"mood": [item]}, {}), Clock(day=40))
    assert [row["floor"] for row in site.comment_rows("mood", item)] == list(range(1, 42))


def test_a_deleted_post_is_gone_from_lists_and_by_id(replica: Replica, session: httpx.Client) -> None:
    id_ = dcard_id("mood", replica.content.dcard["mood"][-1])
    assert session.get(f"/service/api/v2/posts/{id_}").status_code == 404
    assert session.get(f"/service/api/v3/posts/{id_}/comments").status_code == 404
    assert session.get(f"/f/mood/p/{id_}").status_code == 404


def test_keys_vary_and_are_left_out_never_null() -> None:
    items = [dcard_item(n, school="某大" if n % 2 else None) for n in range(12)]
    site = DcardSite(Content({}, {"mood": items}, {}), Clock())
    posts = [site.post("mood", item) for item in items]
    assert len({frozenset(post) for post in posts}) >= 3
    assert all(("school" in post) is (not post["anonymousSchool"]) for post in posts)


def test_an_edit_shows_in_text_and_time() -> None:
    item = dcard_item(3, edited_day=22, edited_body="改過了")
    content = Content({}, {"mood": [item]}, {})
    before, after = (DcardSite(content, Clock(day=day)).post("mood", item, whole=True) for day in (21, 22))
    assert before["content"] == "內容 3" and before["createdAt"] == before["updatedAt"] and not before["edited"]
    assert after["content"] == "改過了" and after["updatedAt"] > after["createdAt"] and after["edited"]


def test_a_ban_gives_an_empty_list_with_status_200() -> None:
    site = DcardSite(Content({}, {"mood": [dcard_item(1)]}, {}), Clock())
    headers = {"cookie": f"dcard_session={site.session}"}
    target = "/service/api/v2/forums/mood/posts"
    assert orjson.loads(site.respond(Request("GET", target, headers)).body)
    assert orjson.loads(site.respond(Request("GET", target, headers), "empty").body) == []
