"""Threads' markup: the media object, the Relay envelope around it, and the page around that."""

from __future__ import annotations

import re
from datetime import datetime
from html import escape
from typing import Any

import orjson

from persona_dagster.sample.content_loader import number, threads_code

WORD = re.compile(r"(https?://\S+|#[^\s#@]+|@[A-Za-z0-9._]+)")


def fragments(text: str) -> list[dict[str, Any]]:
    """The text in pieces: plain, link, tag, mention. Put together they are the text again."""
    pieces = []
    for piece in filter(None, WORD.split(text)):
        kind = {"h": "link", "#": "tag", "@": "mention"}[piece[0]] if WORD.fullmatch(piece) else "plaintext"
        pieces.append(
            {
                "fragment_type": kind,
                "link_fragment": {"display_text": piece, "uri": piece} if kind == "link" else None,
                "mention_fragment": {"mentioned_user": {"username": piece[1:]}} if kind == "mention" else None,
                "plaintext": piece,
                "inline_sticker_fragment": None,
                "linkified_web_url": None,
                "linkified_in_app_url": None,
                "styling_info": None,
            }
        )
    return pieces


def user(name: str) -> dict[str, Any]:
    pk = str(60_000_000_000 + number("user", name) % 10**9)
    return {
        "profile_pic_url": "",
        "id": pk,
        "pk": pk,
        "friendship_status": None,
        "username": name,
        "full_name": name,
        "is_verified": False,
        "transparency_label": None,
        "has_onboarded_to_text_post_app": True,
        "text_post_app_is_private": False,
    }


def media(
    pk: int, name: str, text: str | None, at: datetime, likes: int, *, answers: str | None = None
) -> dict[str, Any]:
    """One post. `answers` is the user whom it replies to; a picture without words has a null caption."""
    author, target = user(name), user(answers) if answers else None
    info: dict[str, Any] = {
        "is_ghost_post": False,
        "id": f"XDTTextPostAppMediaInfo:{17_000_000_000_000_000 + pk % 10**15}",
        "self_thread_info": None,
        "direct_reply_count": 0,
        "repost_count": likes // 20,
        "quote_count": 0,
        "reshare_count": likes // 10,
        "link_preview_attachment": None,
        "linked_inline_media": None,
        "snippet_attachment_info": None,
        "text_fragments": {"fragments": fragments(text)} if text is not None else None,
        "share_info": {"quoted_attachment_post_unavailable": False, "quoted_post": None, "reposted_post": None},
        "is_reply": answers is not None,
        "reply_to_author": target and {"username": target["username"], "id": target["id"]},
        "reply_control": "everyone",
        "self_thread_count": 0,
        "tag_header": None,
        "root_post_author": None,
        "pinned_post_info": {"is_pinned_to_parent_post": False, "is_pinned_to_profile": False},
        "is_post_unavailable": False,
        "post_unavailable_reason": None,
    }
    return {
        "pk": str(pk),
        "user": author,
        "id": f"{pk}_{author['pk']}",
        "text_post_app_info": info,
        "is_paid_partnership": None,
        "audio": None,
        "caption": {"text": text, "pk": str(17_000_000_000_000_000 + pk % 10**15)} if text is not None else None,
        "caption_is_edited": False,
        "code": threads_code(pk),
        "accessibility_caption": None if text is not None else "May be an image of text",
        "image_versions2": {"candidates": []},
        "carousel_media": None,
        "video_versions": None,
        "media_type": 19 if text is not None else 1,
        "like_count": likes,
        "taken_at": int(at.timestamp()),
        "canonical_url": None,
        "like_and_view_counts_disabled": False,
    }


def thread(posts: list[dict[str, Any]]) -> dict[str, Any]:
    """A thread node: a post and what its author added, or one reply."""
    items: list[dict[str, Any]] = [
        {
            "view_replies_cta_string": None,
            "reply_facepile_users": [],
            "post": post,
            "can_inline_expand_below": False,
            "inline_expansion_info": None,
            "parent_post_unavailable_reason": None,
        }
        for post in posts
    ]
    return {
        "header": None,
        "thread_items": items,
        "thread_type": "thread",
        "id": posts[0]["pk"],
        "__typename": "XDTThread",
    }


def relay(query: str, data: dict[str, Any]) -> dict[str, Any]:
    """The envelope in which a page brings a query's answer along."""
    preloader = f"adp_{query}RelayPreloader_{number(query):016x}"
    result = {
        "__bbox": {"complete": True, "result": {"data": data, "extensions": {"is_final": True}}, "sequence_number": 0}
    }
    require = [["RelayPrefetchedStreamCache", "next", [], [preloader, result]]]
    return {"require": [["ScheduledServerJS", "handle", None, [{"__bbox": {"require": require}}]]]}


def script(value: dict[str, Any]) -> str:
    """JSON for a script element: `<` and `/` cannot end it."""
    text = orjson.dumps(value).decode().replace("<", "\\u003C").replace("/", "\\/")
    return f'<script type="application/json"  data-content-len="{len(text.encode())}" data-sjs>{text}</script>'


DRAW = """
const read = (value, found) => {
  if (Array.isArray(value)) value.forEach((inner) => read(inner, found));
  else if (value && typeof value === 'object') {
    if (value.post && value.post.code) found.push(value.post);
    Object.values(value).forEach((inner) => read(inner, found));
  }
  return found;
};
const root = document.getElementById('feed'), shown = new Set();
const draw = (value) => read(value, []).forEach((post) => {
  if (shown.has(post.code)) return;
  shown.add(post.code);
  const row = document.createElement('div');
  row.className = 'x1a6qonq';
  row.innerHTML = '<a></a><p></p><small></small>';
  row.children[0].textContent = '@' + post.user.username;
  row.children[0].href = '/@' + post.user.username + '/post/' + post.code;
  row.children[1].textContent = post.caption ? post.caption.text : '[圖片]';
  row.children[2].textContent = '♥ ' + post.like_count;
  root.appendChild(row);
});
document.querySelectorAll('script[data-sjs]').forEach((element) => {
  const value = JSON.parse(element.textContent);
  if (!element.textContent.includes('relatedPosts')) draw(value);
});
const feed = document.body.dataset;
let cursor = feed.cursor, busy = false;
const more = async () => {
  if (!cursor || busy || window.innerHeight + window.scrollY < document.body.scrollHeight - 800) return;
  busy = true;
  const form = new URLSearchParams({fb_api_req_friendly_name: 'BarcelonaSearchResultsRefetchableQuery',
    lsd: feed.lsd, doc_id: feed.doc, query: feed.query, after: cursor});
  const answer = await fetch('/graphql/query', {method: 'POST', body: form});
  const value = answer.ok ? await answer.json() : null;
  cursor = value ? value.data.searchResults.page_info.end_cursor : null;
  if (value) draw(value);
  busy = false;
};
window.addEventListener('scroll', more);
more();
"""

STYLE = """
body { background: #101010; color: #f3f5f7; font: 15px/1.4 "Noto Sans CJK TC", sans-serif; margin: 0; }
#feed { max-width: 620px; margin: 24px auto; } .x1a6qonq { padding: 14px 20px; border-bottom: 1px solid #2b2b2b; }
.x1a6qonq a { color: #f3f5f7; font-weight: bold; text-decoration: none; } p { white-space: pre-wrap; margin: 6px 0; }
small { color: #777; }
"""


def document(title: str, description: str, path: str, scripts: list[str], *, data: dict[str, str], wall: bool) -> str:
    """A page of the site: meta tags, small scripts of its loader, the data, and a wall if replies were cut."""
    attributes = "".join(f' data-{name}="{escape(value)}"' for name, value in data.items())
    # og tags of the site begin with U+2060 and spell @ as an entity.
    about = "&#x2060;" + escape(description[:160]).replace("@", "&#064;")
    shown = escape(title).replace("@", "&#064;")
    login = "<div>Log in to see more replies.</div>" if wall else ""
    loader = script({"require": [["maybeDisableAnimations", None, None, []]]})
    return f"""<!DOCTYPE html><html class="_9dls _aoqh" lang="en" dir="ltr"><head><meta charset="utf-8" />
<meta property="og:site_name" content="Threads" /><meta property="og:type" content="article" />
<meta property="og:title" content="{shown}" /><meta property="og:description" content="{about}" />
<meta property="og:url" content="https://www.threads.com{escape(path).replace("@", "&#064;")}" />
<title>{shown}</title><style>{STYLE}</style></head>
<body class="_ammd _aqff system-fonts--body segoe"{attributes}>
{loader}
<div id="feed"></div>{login}
{chr(10).join(scripts)}
<script>{DRAW}</script>
<div id='has-finished-comet-page' hidden style='display: none;'></div></body></html>
"""


def search_page(keyword: str, result: dict[str, Any], found: bool) -> str:
    scripts = [script(relay("BarcelonaSearchResultsQuery", {"searchResults": result}))]
    data = {"query": keyword, "lsd": f"{number('lsd', keyword):x}", "doc": "9360915010587398"}
    data["cursor"] = result["page_info"]["end_cursor"] or ""
    title = f"{keyword} • Search on Threads" if found else "Search on Threads"
    return document(title, "", f"/search?q={keyword}", scripts, data=data, wall=False)


def profile_page(name: str, result: dict[str, Any]) -> str:
    scripts = [script(relay("BarcelonaProfileThreadsTabQuery", {"mediaData": result}))]
    return document(f"{name} (@{name}) on Threads", "", f"/@{name}", scripts, data={}, wall=False)


def post_page(
    name: str, code: str, text: str, data: dict[str, Any], related: list[dict[str, Any]], *, cut: bool
) -> str:
    """A post with its replies; posts of others come along as `relatedPosts`, before it, as on the site."""
    related = [{key: value for key, value in node.items() if key != "__typename"} for node in related]
    scripts = [
        script(
            relay("BarcelonaLoggedOutRelatedPostsQuery", {"relatedPosts": {"threads": related, "trending_threads": []}})
        ),
        script({"require": [["BarcelonaPostPage", "init", None, [{"route": "BarcelonaPostPageDirectQuery"}]]]}),
        script(relay("BarcelonaPostPageDirectQuery", {"data": data})),
    ]
    return document(f"{name} (@{name}) on Threads", text, f"/@{name}/post/{code}", scripts, data={}, wall=cut)
