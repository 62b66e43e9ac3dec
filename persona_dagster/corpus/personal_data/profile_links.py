"""Accounts in links to profiles. All texts here are normalised."""

from __future__ import annotations

import re
from collections.abc import Iterator

from persona_dagster.corpus.personal_data.accounts import CHAT, LINE, SITE

LINKS = (
    (LINE, r"line(?:\.me/|://)(?:r/)?ti/[pg]2?/|page\.line\.me/|lin\.ee/"),
    ("IG_ID", r"instagram\.com/(?:stories/)?|instagr\.am/|ig\.me/(?:m/)?"),
    (
        "FB_ID",
        r"(?:facebook|fb)\.(?:com|me)/(?:profile\.php\?id=|people/[^/\s]{1,60}/|[^\s]{0,80}?[?&](?:story_)?(?:fb)?id=)?"
        r"|m\.me/",
    ),
    (
        CHAT,
        r"(?:t|telegram)\.me/(?:joinchat/)?|(?:wa\.me|chat\.whatsapp\.com)/|api\.whatsapp\.com/send\?phone="
        r"|discord\.gg/"
        r"|discord(?:app)?\.com/(?:users|invite)/",
    ),
    (
        SITE,
        r"threads\.(?:net|com)/(?=@)|tiktok\.com/(?=@)|dcard\.tw/(?=@)|medium\.com/(?=@)"
        r"|youtube\.com/(?:(?=@)|c/|user/|channel/)",
    ),
    (
        SITE,
        r"(?:twitter|x)\.com/|plurk\.com/|twitch\.tv/|steamcommunity\.com/(?:id|profiles)/|linkedin\.com/in/"
        r"|weibo\.com/(?:u/)?"
        r"|shopee\.tw/(?:shop/)?",
    ),
    (SITE, r"github\.com/(?=[^/\s]{1,40}(?:[^/A-Za-z0-9\-]|$))"),
)
LINK_KEYS = (
    "line.me", "line://", "lin.ee", "instagr", "ig.me", "facebook", "fb.", "m.me", "t.me", "wa.me", "whatsapp",
    "telegram", "discord", "threads.", "tiktok", "dcard.tw", "medium.com", "youtube.com", "twitter", "x.com", "plurk",
    "twitch.tv", "steamcommunity", "linkedin", "weibo", "shopee", "github",
)  # fmt: skip
LINK = re.compile(
    r"(?<![A-Za-z0-9\-.])(?:(?:www|m|mobile|zh-tw|business|web|l)\.)?(?:"
    + "|".join(f"(?P<link{number}>{hosts})" for number, (_, hosts) in enumerate(LINKS))
    + r")(?P<handle>[~@%+A-Za-z0-9_.\-]{3,60})(?!/?[A-Za-z0-9_%~+\-])",
    re.IGNORECASE,
)
# The same where a path goes on behind the handle, for sites where that is still somebody's page.
DEEP_LINK = re.compile(
    r"(?<![A-Za-z0-9\-.])(?:(?:www|m|mobile)\.)?(?:"
    r"(?P<link4>threads\.(?:net|com)/(?=@)|tiktok\.com/(?=@)|dcard\.tw/(?=@)|medium\.com/(?=@)|youtube\.com/(?=@))"
    r"|(?P<link1>instagram\.com/)|(?P<link2>(?:facebook|fb)\.com/)|(?P<link5>(?:twitter|x)\.com/))"
    r"(?P<handle>[@A-Za-z0-9_.\-]{3,60})(?=/[A-Za-z0-9])",
    re.IGNORECASE,
)
NOT_A_PROFILE = frozenset(
    """
    p reel reels tv stories explore share sharer watch groups pages events photo photo.php permalink.php story.php
    hashtag video videos media plugins dialog profile.php pg help shop marketplace ads business tr stickershop gift
    themeshop home search i intent login about features pricing topics settings privacy tos terms accounts direct
    product cart buyer flash_sale mall search_user notifications messages compose joinchat addstickers s sharer.php
    directory joblist jobs feed results playlist shorts embed channel user status download developer policies
    """.split()  # noqa: SIM905
)  # fmt: skip


def linked(text: str) -> Iterator[tuple[int, int, str]]:
    """Spans with their kinds, of the handles in links to profiles."""
    small = text.lower()
    if not any(key in small for key in LINK_KEYS):
        return
    for number_of_link in (LINK, DEEP_LINK):
        for found in number_of_link.finditer(text):
            group = next(name for name, value in found.groupdict().items() if value is not None and name != "handle")
            kind, handle = LINKS[int(group.removeprefix("link"))][0], found["handle"].rstrip(".-")
            if handle.lower() not in NOT_A_PROFILE and not re.search(r"-i\.[0-9]", handle):
                yield found.start("handle"), found.start("handle") + len(handle), kind
