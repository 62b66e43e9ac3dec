"""Accounts on messengers and sites beside the site's name: LINE, WeChat, Telegram, Instagram, Facebook and others.

Either the name and a sign ("IG: x"), or the name and something that looks like an account ("我的ig x.y"). All texts
here are normalised.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from persona_dagster.corpus.common_words import NOT_A_NAME
from persona_dagster.corpus.personal_data.homophones import sounds_like
from persona_dagster.corpus.personal_data.normalise import digits_of
from persona_dagster.corpus.personal_data.users import NOT_A_MENTION, WRITER

Span = tuple[int, int]

HANDLE = r"(?P<handle>(?:@ ?)?[A-Za-z0-9_][A-Za-z0-9._\-]{2,31}(?:#[0-9]{4})?)"
SUFFIX = r"(?:的|官方帳號|官方|私訊|聊|嗎|喔|🆔|[\u2600-\u27bf\U0001f300-\U0001faff])?"
# "ID: x", "帳號是x", ": x", "@x": after these any word is a handle.
NAMED = (
    r"(?:[ ]?(?:i ?d|[ㄧㄞ愛哀艾挨][ㄉ滴低底弟迪d]ㄧ?"
    r"|hao|帳號|帳户|号|號|賬號)(?:是)?[ ]{0,2}(?:[:=是為「\"/~]|[=\-]>|叫做?|請?[搜加找]尋?)?"
    r"[ ]{0,2}"
    r"|[ ]{0,2}[:=是「\"/~][ ]{0,2}(?:id[: ]{0,2})?|[ ]{0,2}\([ ]?(?:id[: ]{0,2})?|[ ]{0,2}(?:小老鼠|(?=@)))"
)
# After looser words (我的ig x, 賴我x, IG搜x) only what looks like a handle: letters with a digit, dot or underscore.
LOOSE = (
    r"(?:[ 上請啦的是就為叫做找搜尋索私訊密改成換名稱字帳號我你妳他她給加小編主管追蹤新開同也一下樣聊談詳喔唷囉]"
    r"|id){0,8}"
)
LOOKS = (
    r"(?P<other>@?(?=[A-Za-z\-]{0,29}[0-9._]|[A-Za-z]{1,9}-[A-Za-z]{1,9}-)(?=[0-9._\-]{0,29}[A-Za-z])[A-Za-z0-9_][A-Za-z0-9._\-]{2,31}"
    r"(?:#[0-9]{4})?)"
)
SPACED = (
    r"[ :=是\"加搜找]{0,4}(?P<spaced>(?:@ )?(?:[A-Za-z0-9._\-] ){5,31}[A-Za-z0-9._\-](?![A-Za-z0-9]))"  # w a n g _ 7 7
)
# Without a sign or a looser word, what can hardly be anything else.
STRONG = (
    r"(?P<strong>@?(?=[A-Za-z0-9.\-]{1,20}_|[A-Za-z]{3,20}[._]?[A-Za-z]{0,20}[0-9]{2})(?=(?:[A-Za-z]\.)?[0-9._\-]{0,9}[A-Za-z]{2})"
    r"[A-Za-z0-9_][A-Za-z0-9._\-]{4,31})"
)
# Whatever stands between, where a word or a sign of it offers an account: 有line嗎 我的是x.y, LINE🔎x_y.
OFFERED = (
    r"(?=[^A-Za-z0-9\n<]{0,11}?(?:[加私搜追我你妳嗎聊敲]|[^\w\s,.;!?，。、；！？()「」~…%$/<>\-]))[^A-Za-z0-9\n<]{1,12}"
)
# Farther off in the sentence, what can hardly be anything else.
IN_SENTENCE = (
    r"(?=(?:[^A-Za-z0-9\n<]|id){0,21}?[加搜找追敲聊我用是在給換改叫這吧下樣])(?:[^A-Za-z0-9\n<]|id){1,22}"
    r"(?P<far>@?(?=[A-Za-z0-9.\-]{1,20}_|[A-Za-z]{2,20}\.[A-Za-z0-9]|[A-Za-z]{3,20}[._]?[A-Za-z]{0,20}[0-9]{2})"
    r"(?=(?:[A-Za-z]\.)?[0-9._\-]{0,9}[A-Za-z]{2})[A-Za-z0-9_][A-Za-z0-9._\-]{4,31})"
)
PARTED = r"[ .*_:\-]?"  # of a site's name
FREE, SIGNED = "free", "signed"  # SIGNED: the name is a common word, or much said without an account


@dataclass(frozen=True)
class Service:
    """`latin`, `han`: its names, alternatives of a pattern. `numeric`: its accounts may be plain numbers after a sign.
    `keys`: one of them stands, in small letters and without spaces, in every text that names it; its names by default.
    `sounds`: what its names sound like; a service of its own, so that few texts are read for it.
    """

    kind: str
    latin: str = r"(?!)"
    han: str = r"(?!)"
    mode: str = FREE
    numeric: bool = False
    keys: tuple[str, ...] = ()
    sounds: str = r"(?!)"

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        # A Latin name stands alone: `fb` inside a hash (…28fbc44cf…) or `ig` in `ignore.1` names no account.
        name = rf"(?:(?<![A-Za-z0-9<])(?:{self.latin})(?=id|[^A-Za-z0-9_]|_ )|{self.han}|{self.sounds})[)\]\"]?"
        loose = (
            rf"|[ 帳號id是好友搜加找叫上的用]{{0,5}}{STRONG}"
            if self.mode == SIGNED
            else rf"|(?:{LOOSE}|{OFFERED}){LOOKS}|{IN_SENTENCE}"
        )
        return re.compile(rf"{name}[ ]?{SUFFIX}[ ]?(?:{SPACED}|{NAMED}{HANDLE}{loose})", re.IGNORECASE)

    @cached_property
    def _said_by(self) -> tuple[str, ...]:
        return self.keys or tuple(name for name in f"{self.latin}|{self.han}".split("|") if name != "(?!)")

    @cached_property
    def _heard(self) -> re.Pattern[str]:
        return re.compile(self.sounds)

    def may_stand_in(self, text: str, small: str) -> bool:
        """Whether it is worth looking for; `small`: the text in small letters, without spaces."""
        return any(key in small for key in self._said_by) or self._heard.search(text) is not None


LINE, CHAT, SITE = "LINE_ID", "CHAT_ID", "SITE_ID"
SITES = (
    Service(
        LINE,
        rf"[l1|]{PARTED}[i!1l|ㄧ*]{PARTED}n{PARTED}[e3]|[來賴]ine",
        r"賴{1,2}|[癩籟](?![^\s]?[皮蛤])|ㄌㄞˋ?|ㄌ[ㄧ|]?ㄋㄜ?ˋ?|拉印|加萊|綠色(?:[^\s,。]{0,4}?(?:軟體|程式|app)|通訊|那個)"
        r"|綠綠(?!的)|綠綠的(?:那個)?app|(?<![大變])小綠(?!人|燈|豆|葉)",
        numeric=True,
        keys=(
            *"賴癩籟ㄌ綠",
            "拉印",
            "加萊",
            "ine",
            "!ne",
            "1ne",
            "|ne",
            "lne",
            "*ne",
            "in3",
            "i.n",
            "i-n",
            "i*n",
            "i_n",
        ),
    ),
    Service(
        LINE,
        sounds=rf"[+加私](?:{sounds_like('賴')}){{1,2}}(?=[^\u4e00-\u9fff])|[+加]ㄌ|[來賴萊]印|[來萊賴]ㄣ|[萊來][恩因]",
        numeric=True,
    ),
    Service(
        LINE,
        r"\+ ?l|加 ?l|l(?= ?[號号])",
        "萊恩?|加 ?來|來(?= ?id)",
        SIGNED,
        keys=("+l", "加l", "l號", "萊", "加來", "來id"),
    ),
    Service(
        "IG_ID",
        r"ig|i g(?= ?(?::|帳))|i ?[._*\-] ?g|[1!|](?:g|9)(?= ?(?:[:搜找追私]|帳|id))|[i1l!]nst[a4@](?:gr[a4@]m)?"
        r"|ins(?= ?[:@]| [a-z]{2,}_)",
        "小盒子",
        keys=("ig", "i.g", "i_g", "i-g", "i*g", "ns", "1g", "19", "!g", "|g", "小盒子"),
    ),
    Service("IG_ID", sounds=rf"{sounds_like('愛居')}|[哀愛艾挨](?:寄|吉(?!他)|雞|g(?![a-z]))|[哀艾挨]機"),
    Service("FB_ID", "fb|f[a4@]ceb[o0]{2}k", "臉書|臉臉|非死不可", keys=("fb", "ceb", "臉", "非死")),
    Service(CHAT, sounds=sounds_like("微信"), numeric=True),
    Service(
        CHAT,
        r"we ?ch[a4@]t|vx|wx|v信",
        r"綠泡泡|(?<![A-Za-z0-9])[+加] ?(?:v(?![0-9A-Za-z])|[微薇](?![A-Za-z\u4e00-\u9fff]))(?:信|我)?"
        r"|(?<![A-Za-z])v信|(?<![\u4e00-\u9fff])[薇葳](?=[^\w\s]? ?[:A-Za-z])",
        numeric=True,
        keys=("wech", "vx", "wx", "v信", "+v", "加v", "+微", "加微", "+薇", "加薇", *"薇葳泡"),
    ),
    Service(
        CHAT,
        r"te[l1i|]egr[a4@]m|t[.|ㄧ_\-]?g|tele",
        "電報|紙飛機|小飛機",
        keys=("tele", "te1e", "teie", "te|e", "tg", "t.g", "t|g", "tㄧg", "t-g", "t_g", "電報", "飛機"),
    ),
    Service(CHAT, han="飛機", mode=SIGNED),
    Service(CHAT, "d[i1l!|ㄧ]sc[o0]rd|d[ .]?c", numeric=True, keys=("dc", "sc")),
    Service(
        CHAT, "whats ?app|kakao ?(?:talk)?|viber|signal|skype", keys=("whats", "kakao", "viber", "signal", "skype")
    ),
    Service(
        SITE,
        "threads|twitter|tiktok|plurk|snapchat|tinder|bumble|pixiv|twitch|weibo|onlyfans",
        "推特|抖音|噗浪|微博|串文",
    ),
    Service(
        SITE,
        "steam|github|youtube|yt|xhs|switch|psn|xbox|ptt|dcard",
        "脆|批踢踢|小紅書|小红书|蝦皮|露天|卡稱|旋轉|頻道|巴哈姆特|巴哈|b站",
        SIGNED,
        numeric=True,
    ),
)
NUMERIC_QQ = re.compile(
    r"(?:加 ?qq|(?<![A-Za-z])qq ?(?:[號号]|[:=]|id))[ :=]{0,3}(?P<handle>[1-9][0-9]{4,10})(?![0-9])", re.IGNORECASE
)
PLAYER = re.compile(  # of a game or a shop: a number after its own name
    r"(?:(?:好友(?:代碼|碼|編號)|(?<![A-Za-z])uid)[ :=是]{0,3}|(?=SW-))"
    r"(?P<handle>[0-9]{7,12}|(?:SW-)?[0-9]{4}(?:[ -][0-9]{4}){2})"
    r"(?![0-9])",
    re.IGNORECASE,
)
SKYPE = re.compile(r"(?<![A-Za-z0-9])(?P<handle>live:[A-Za-z0-9._\-]{3,32})", re.IGNORECASE)
HAN_TAG = re.compile(
    r"(?<![a-z])(?:discord|dc)[^A-Za-z0-9\n#]{0,10}?(?:名稱|名字|帳號|暱稱|[:是叫成為找加 ])[:是叫 ]{0,2}"
    r"(?P<handle>[\u4e00-\u9fffA-Za-z0-9_.]{2,20}#[0-9]{4})"
    r"(?![0-9])",
    re.IGNORECASE,
)
TAGGED = re.compile(  # Discord's old names
    r"(?<![A-Za-z0-9#])(?P<handle>(?=[0-9_.]{0,31}[A-Za-z])[A-Za-z0-9_.]{3,32}#[0-9]{4})(?![0-9A-Za-z])"
)
GLUED = re.compile(  # 加linemei88
    r"(?:(?:加|\+|私|我|的) ?(?P<name>l[i1!|]ne|ig|fb|vx|wx|tg|dc)(?:id)?(?=[A-Za-z._]{0,31}[0-9])"
    # of the sign alone only in capitals, before small letters with an underscore: IGa_b, 加La_b
    r"|(?-i:(?:(?<![A-Za-z0-9])(?P<sign>LINE|IG|FB)|(?<=[加+])L)(?=[a-z]{3,20}[0-9]{2,6}(?![0-9a-z])|[a-z][a-z0-9.]{1,20}[_.]{1,3}"
    r"(?!(?:com|tw|net|me|io|js|py)(?![a-z]))[a-z0-9])))"
    r"(?P<handle>[A-Za-z][A-Za-z0-9._\-]{3,31})",
    re.IGNORECASE,
)
GLUED_KINDS = {"line": LINE, "ig": "IG_ID", "fb": "FB_ID"}
HAN_AT = re.compile(
    r"(?:微博|weibo|小紅書|抖音|噗浪)[ :]{0,3}(?P<handle>@[\u4e00-\u9fffA-Za-z0-9_\-]{2,20})", re.IGNORECASE
)

FACEBOOK = ("fb", "facebook", "臉書", "非死")
# A name holds no word of a sentence: 臉書名字她看得到是Lo and 臉書搜尋或LINE掃描 name nobody.
FB_NAME = re.compile(
    r"(?<![A-Za-z<])(?:fb|facebook|臉書) ?(?:(?:搜尋|搜(?!尋))[: ]?(?!功能|結果|不到|紀錄|引擎|欄)"
    r"|(?:名字|名稱|暱稱)(?:(?:是|叫做?|為|[: ]){1,2}|(?=[A-Za-z])))"
    r"(?P<handle>(?:(?![她我他你妳您它們看是有得到或及和與請可會了沒嗎吧]|的粉)[\u4e00-\u9fffA-Za-z]){2,16}?"
    r"(?: [A-Z][a-z]{1,12})?)(?=就|[，,。！!？?、\s)]|$)",
    re.IGNORECASE,
)
FB_QUOTED = re.compile(
    r"(?:(?<![A-Za-z<])(?:fb|facebook)|臉書) ?[搜找]尋?\"(?P<handle>[^\"\n<]{2,20})\"", re.IGNORECASE
)
FB_PERSON = re.compile(
    r"(?:(?<![A-Za-z<])(?i:fb|facebook)|臉書|非死不可)[ :上的叫是找名字搜]{1,6}"
    r"(?!(?:Messenger|Market|Live|Business|Watch|Reels|Ads|Page|Group|Story|Reality|Meta))"
    r"(?P<handle>[A-Z][a-z]{1,15}(?: [A-Z][a-z]{1,15}){1,2})(?![A-Za-z])"
)

ID_FIRST = re.compile(  # ID: x, and then which site it is for
    rf"(?:(?<![A-Za-z])id|帳號?) ?[:=是] ?{LOOKS}(?=[^A-Za-z0-9\n]{{0,8}}(?:line|賴|ig|tg|dc|wechat|微信))",
    re.IGNORECASE,
)
SITES_BEHIND = (
    r" ?(?:\((?=[^\n()]{1,9}\))|[這就]?是我的?|[這那]個)"
    r"(?:line|賴|ig|脆|threads|tg|dc)(?![a-z]| [0-9])"
)
BEHIND = re.compile(SITES_BEHIND, re.IGNORECASE)
SITE_BEHIND = re.compile(rf"(?<![A-Za-z0-9._/@]){LOOKS}{SITES_BEHIND}", re.IGNORECASE)
CONTACT = re.compile(  # whichever site it is on
    r"(?:[加找搜敲密追私]我|[\U0001f4ac\U0001f4e9\U0001f4f2\U0001f194]|好友 ?(?:id)?"
    r"|搜(?=[a-z0-9._]{5,30}就)|帳號[是:叫]?|我的?(?:id|帳號)|帳[是:叫]?"
    r"|(?<![A-Za-z])id ?[:是](?= ?[a-z._]{0,30}[0-9_]))"
    rf" ?{STRONG}(?![A-Za-z0-9@/])",
    re.IGNORECASE,
)
SPELT_LINK = re.compile(  # f b . c o m / x, fb點com/x
    r"(?<![A-Za-z])(?=[a-z]{1,9} ?(?: |點|\())(?:f ?b|f ?a ?c ?e ?b ?o ?o ?k|i ?n ?s ?t ?a ?g ?r ?a ?m|l ?i ?n ?e|t)"
    r" ?(?:\.|點|\(點\)|\(?dot\)?) ?(?:c ?o ?m|m ?e|e ?e|n ?e ?t) ?/ ?(?P<handle>[~@%+A-Za-z0-9_.\-/]{3,60})",
    re.IGNORECASE,
)
# What can hardly be anything but an account, beside a site's name on either side of it and over a line's end.
BESIDE = re.compile(
    r"(?<![A-Za-z0-9._@/\-$#+&=])@?(?=[A-Za-z0-9.\-]{0,20}_|[A-Za-z0-9]{2,20}\.[A-Za-z0-9]"
    r"|(?=(?:[0-9.\-]{0,9}[A-Za-z]){3})(?:[A-Za-z.\-]{0,20}[0-9]){2}|[a-z]{2,15}[A-Z][A-Za-z]{1,15}[0-9])"
    r"(?=(?:[A-Za-z]\.)?[0-9._\-]{0,9}[A-Za-z]{2}"
    r"|[A-Za-z][0-9]{2,6}[A-Za-z]{2})[A-Za-z0-9_][A-Za-z0-9._\-]{4,31}(?![A-Za-z0-9@/\[={$]|[._\-][A-Za-z0-9]"
    r"|\((?!line|ig|dc|threads|[\u4e00-\u9fff]))"
)
ALONE = r"(?<![A-Za-z0-9_.\-])(?:{})(?![A-Za-z0-9_.\-])"  # a Latin name as a word of its own
SITES_BESIDE = tuple(
    (kind, keys.split(), re.compile(names, re.IGNORECASE))
    for kind, keys, names in (
        (
            LINE,
            "line 賴",
            r"(?<!in )(?<!on )"
            + ALONE.format("line")
            + r"(?! ?(?:pay|bank|today|notify|bot|tv|theme|friends|points?|store|music|[0-9]|[\"群貼主禮社購]))"
            r"|賴(?!清德|總統|床|皮|在|著|院)",
        ),
        ("IG_ID", "ig instagram", ALONE.format("ig|instagram")),
        (
            SITE,
            "threads twitch twitter tiktok plurk snapchat 推特 抖音 噗浪 小紅書 微博 站內信 脆",
            ALONE.format("threads|twitch|twitter|tiktok|plurk|snapchat")
            + r"|推特|抖音|噗浪|小紅書|微博|站內信|(?<![爽酥清乾])脆(?![弱皮餅片笛骨脆的]|友[們都])",
        ),
        (
            CHAT,
            "discord dc telegram tg wechat whatsapp 微信 電報",
            ALONE.format("discord|dc|telegram|tg|wechat|whatsapp") + "|微信|電報",
        ),
    )
)
OFFERING = re.compile(r"[加搜找追聊私敲是叫我打帳台換:\"@]|(?<![a-z])(?:is|on|add)(?![a-z])", re.IGNORECASE)
WRITTEN_BEFORE, WRITTEN_BEHIND = 16, 18  # letters between an account and the site's name, and the name
# Files, hosts, programs and machines are written like accounts.
NOT_BESIDE = re.compile(
    r".*\.(?:com|net|org|tw|io|me|cc|tv|app|dev|ai|html?|php|aspx?|png|jpe?g|gif|webp|mp[34]|mov|pdf|docx?|xlsx?"
    r"|pptx?|zip|rar|7z|txt|json|csv"
    r"|exe|apk|md|js|ts|py|css|java|cpp|sh|ya?ml|sql|log|conf|ini|dll|so|edu|gov|ee|be|ly|gl)$"
    r"|[0-9.]+(?:min|sec|hr|hour|day|week|year|month)s?$|.*_$|.*[a-z][0-9]+[a-z]+[0-9]+[a-z]"
    r"|(?:ios|android|win(?:dows)?|iphone|ipad|ipod|galaxy|pixel|macbook|mac|rtx|gtx|python|gpt|chatgpt|wifi|usb"
    r"|covid|type|level|lv|ver|v|day|ep|part|no|vol|top)[._\-]?[0-9]"
    r"|(?-i:[A-Z0-9_\-]+$)",  # MAX_LEN
    re.IGNORECASE,
)
# One of the last stands, in small letters and without spaces, in every text in which the pattern finds something.
OTHERS = (
    (CHAT, NUMERIC_QQ, "handle", ("qq",)),
    (CHAT, SKYPE, "handle", ("live:",)),
    (SITE, PLAYER, "handle", ("好友代碼", "好友碼", "好友編號", "uid", "sw-")),
    (CHAT, HAN_TAG, "handle", ("#",)),
    (CHAT, TAGGED, "handle", ("#",)),
    (SITE, HAN_AT, "handle", ("@",)),
    ("FB_ID", FB_PERSON, "handle", FACEBOOK),
    ("FB_ID", FB_QUOTED, "handle", FACEBOOK),
    (CHAT, ID_FIRST, "other", ("id", "帳")),
    (CHAT, SITE_BEHIND, "other", ("line", "賴", "ig", "脆", "threads", "tg", "dc")),
    (SITE, CONTACT, "strong", ("我", "搜", "帳", "id")),
    (SITE, SPELT_LINK, "handle", ("/",)),
)

VERSION = re.compile(r"v?[0-9]+(?:[.\-][0-9]+)*[a-z]?", re.IGNORECASE)
NOT_A_HANDLE = re.compile(
    r"^(?:[a-z_]{1,20}_(?:id|token|ur[li]|secret|key|code|type|api|path|error|config)$|(?:points?|pay)[0-9]+$|b[0-9]{1,4}$|v[0-9]{1,3}$|ver[0-9.]|"
    r"(?:iphone|ios|android|ipad|covid-?|ps|win|mate|note|s|b|m|f)[ _]?[0-9]{1,4}[a-z]{0,3}$|"
    r"[0-9.]+(?:[km]|gb?|mb?|mah|hz|fps|v|w|a|p|s|ms|px|mm|cm|kg|am|pm)$|"
    r"pay|points?|today|shopping|music|tv|webtoon|bank|travel|taxi|game|games|id|ig|fb|line|http|https|www|com|and|the|"
    r"call|app|bot|store|gift|up|out|in|on|of|for|is|are|or|not|with|from|live|official|messenger|beta|group)\b",
    re.IGNORECASE,
)
HOST_AFTER = re.compile(r"^\.(?:com|net|tw|me|org|io|js|py|cc)(?![A-Za-z0-9])", re.IGNORECASE)


def named(text: str) -> Iterator[tuple[int, int, str]]:
    """Spans with their kinds, of handles beside a site's name."""
    for found in GLUED.finditer(text):
        yield *found.span("handle"), GLUED_KINDS.get((found["name"] or found["sign"] or "line").lower(), CHAT)
    small = text.lower().replace(" ", "")
    for kind, pattern, group, keys in OTHERS:
        if not any(key in small for key in keys) or (pattern is SITE_BEHIND and not BEHIND.search(text)):
            continue
        for found in pattern.finditer(digits_of(text) if pattern is PLAYER else text):
            if pattern is not CONTACT or not NOT_A_HANDLE.match(found[group]):
                yield *found.span(group), kind
    for site in SITES:
        if not site.may_stand_in(text, small):
            continue
        for found in site.pattern.finditer(text):
            if span := _handle(site, found, text):
                yield *span, site.kind
    for found in FB_NAME.finditer(text) if any(key in small for key in FACEBOOK) else ():
        yield *found.span("handle"), "FB_ID"
    yield from _beside(text, small)


def _beside(text: str, small: str) -> Iterator[tuple[int, int, str]]:
    sites = [
        (kind, name) for kind, keys, name in SITES_BESIDE if any(key in small for key in keys) and name.search(text)
    ]
    for found in BESIDE.finditer(text) if sites else ():
        handle = found.group().rstrip(".-")
        bare = handle.lstrip("@")
        if NOT_BESIDE.match(bare) or NOT_A_HANDLE.match(bare) or VERSION.fullmatch(bare):
            continue
        start, end = found.start(), found.start() + len(handle)
        ahead, behind = text[max(0, start - WRITTEN_BEFORE) : start], text[end : end + WRITTEN_BEHIND]
        if WRITER.search(ahead):
            continue
        around = f"{ahead}\n{behind}"
        alone = ahead[-1:] in ("", "\n") and behind[:1] in ("", "\n")
        if not (alone or re.search("[0-9]{2}", bare) or OFFERING.search(around)):
            continue
        for kind, name in sites:
            if name.search(around):
                yield start, end, kind
                break


def _handle(site: Service, found: re.Match[str], text: str) -> Span | None:
    group = next(
        name for name in ("spaced", "handle", "other", "strong", "far") if found.groupdict().get(name) is not None
    )
    handle = found.group(group).rstrip(".-")
    bare = handle.replace(" ", "").lstrip("@")
    if group == "handle" and text[found.start(group) - 1] == "/" and bare.isalpha():  # 看YT/PTT: a list of two
        return None
    if len(bare) < 3 or NOT_A_HANDLE.match(bare) or (bare.isdigit() and not (site.numeric and len(bare) >= 5)):
        return None
    if (VERSION.fullmatch(bare) and not bare.isdigit()) or NOT_A_MENTION.match(handle):
        return None
    if "@" not in handle and (bare.lower() in NOT_A_NAME or HOST_AFTER.match(text[found.start(group) + len(handle) :])):
        return None
    if group in ("other", "strong", "far") and VERSION.fullmatch(bare):
        return None
    return found.start(group), found.start(group) + len(handle)
