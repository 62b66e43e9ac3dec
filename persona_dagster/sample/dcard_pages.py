"""Dcard's pages: nearly empty HTML, and the script that fetches lists, posts and comments and draws them; or, as
reported for 2026, the first posts and a post's text rendered by the server, and the script for what comes later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import orjson

STYLE = """
body { margin: 0; background: #00324e; font: 16px/1.6 "Noto Sans CJK TC", sans-serif; color: #222; }
header { background: #006aa6; color: #fff; padding: 12px 24px; font-weight: bold; }
main { max-width: 720px; margin: 24px auto; background: #fff; border-radius: 12px; padding: 8px 0; }
article { padding: 14px 28px; border-bottom: 1px solid #eee; } h2 { font-size: 17px; margin: 4px 0; }
h2 a { color: #222; text-decoration: none; } .sc-4d1e a { color: #3397cf; } .sc-9a07 { color: #888; font-size: 13px; }
.sc-77aa { white-space: pre-wrap; } .sc-c0de { height: 80px; }
"""

# What both pages share: the site's JSON over fetch(), which carries the session.
COMMON = """
const state = JSON.parse(document.getElementById('__STATE__').textContent);
const api = async (path) => {
  const answer = await fetch(path, {headers: {accept: 'application/json'}});
  if (!answer.ok) throw new Error(answer.status);
  return answer.json();
};
const draw = (parent, tag, name, text) => {
  const element = document.createElement(tag);
  element.className = name;
  element.textContent = text;
  parent.appendChild(element);
  return element;
};
let busy = false;
const whenNear = (more) => {
  const check = () => {
    if (!busy && window.innerHeight + window.scrollY > document.body.scrollHeight - 600) more();
  };
  window.addEventListener('scroll', check);
  return check;
};
"""

FORUM = """
let pageKey = state.pageKey, offset = state.offset;
const list = document.getElementById('list');
const more = async () => {
  if (!pageKey) return;
  busy = true;
  try {
    const query = new URLSearchParams({enrich: 'true', forumLogo: 'true', pinnedPosts: 'widget', country: 'TW',
      platform: 'web', listKey: state.listKey, pageKey, offset});
    const answer = await api('/service/api/v2/globalPaging/page?' + query);
    for (const widget of answer.widgets) for (const {post} of (widget.forumList || {items: []}).items) {
      const article = draw(list, 'article', 'sc-1f3b', '');
      draw(article, 'div', 'sc-9a07', state.forumName + ' · ' + (post.school || '匿名') + ' · ' + post.createdAt);
      const title = draw(draw(article, 'h2', 'sc-4d1e', ''), 'a', 'sc-4d1f', post.title);
      title.href = '/f/' + state.forum + '/p/' + post.id;
      draw(article, 'div', 'sc-77ab', post.excerpt);
      draw(article, 'div', 'sc-9a07', '愛心 ' + post.likeCount + ' · 留言 ' + post.commentCount);
      offset += 1;
    }
    pageKey = answer.nextKey;
  } catch (error) {
    pageKey = null;
    draw(list, 'p', 'sc-e440', '載入失敗 ' + error.message);
  } finally {
    busy = false;
  }
};
if (state.offset) whenNear(more); else more().then(whenNear(more));
"""

POST = """
let nextKey = '';
const root = document.getElementById('list');
const more = async () => {
  if (nextKey === null) return;
  busy = true;
  try {
    const base = '/service/api/v3/posts/' + state.id + '/comments?sort=oldest';
    const answer = await api(nextKey ? base + '&nextKey=' + nextKey : base);
    for (const comment of answer.items) {
      const row = draw(root, 'article', 'sc-1f3c', '');
      draw(row, 'div', 'sc-9a07', 'B' + comment.floor + ' ' + (comment.school || ''));
      draw(row, 'div', 'sc-77aa', comment.hidden ? '這則留言已刪除' : comment.content);
    }
    nextKey = answer.nextKey;
  } catch (error) {
    nextKey = null;
  } finally {
    busy = false;
  }
};
if (!state.rendered) api('/service/api/v2/posts/' + state.id + '?withPreview=true').then((post) => {
  const article = draw(root, 'article', 'sc-1f3b', '');
  draw(article, 'h1', 'sc-4d1e', post.title);
  draw(article, 'div', 'sc-77aa', post.content);
}).then(more).then(whenNear(more));
"""


def shell(title: str, state: dict[str, object], script: str, body: str = "") -> str:
    data = orjson.dumps(state).decode().replace("<", "\\u003c")
    return f"""<!DOCTYPE html><html lang="zh-Hant-TW"><head><meta charset="utf-8"><title>{escape(title)} | Dcard</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>
<body><header>Dcard · {escape(title)}</header><main id="list">{body}</main><div class="sc-c0de"></div>
<script id="__STATE__" type="application/json">{data}</script>
<script>{COMMON}{script}</script></body></html>"""


def forum_page(
    forum: str, name: str, list_key: str, page_key: str | None, rendered: Sequence[Mapping[str, Any]] = ()
) -> str:
    """/f/<alias>: the newest posts, more as one scrolls; the first stand in the page where they are `rendered`."""
    state: dict[str, object] = {"forum": forum, "forumName": name, "listKey": list_key, "pageKey": page_key}
    state["offset"] = len(rendered)
    body = "".join(
        f'<article class="sc-1f3b"><time class="sc-9a07" datetime="{row["createdAt"]}">{row["createdAt"]}</time>'
        f'<h2 class="sc-4d1e"><a class="sc-4d1f" href="/f/{forum}/p/{row["id"]}">{escape(row["title"])}</a></h2>'
        f'<div class="sc-77ab">{escape(row["excerpt"])}</div></article>'
        for row in rendered
    )
    return shell(name, state, FORUM, body)


def post_page(forum: str, name: str, id_: int, title: str, rendered: Mapping[str, Any] | None = None) -> str:
    """/f/<alias>/p/<id>: one post and its comments, more as one scrolls."""
    state: dict[str, object] = {"forum": forum, "forumName": name, "id": id_, "rendered": rendered is not None}
    body = ""
    if rendered is not None:
        body = (
            f'<article class="sc-1f3b"><h1 class="sc-4d1e">{escape(title)}</h1>'
            f'<time datetime="{rendered["createdAt"]}"></time>'
            f'<div class="sc-77aa">{escape(rendered["content"])}</div></article>'
        )
    return shell(title, state, POST, body)
