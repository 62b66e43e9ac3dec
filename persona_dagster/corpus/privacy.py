"""Personal data out of text: Taiwanese identifiers replaced by typed placeholders.

Plain Python on gated rows, because checksums, context and look-around are what tells a phone number from a
price. Detectors see full-width digits folded one to one, so spans hold in the original text.
"""

from __future__ import annotations

import ipaddress
import re
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import polars as pl

from persona_dagster.corpus.common_words import NOT_A_NAME

Span = tuple[int, int]
Detector = Callable[[str], Iterator[Span]]

# One character for one character: spans found in the folded text are spans of the original.
FOLD = str.maketrans(
    "０１２３４５６７８９ＡＢＣＤＥＦＧＨＩＪＫＬＭＮＯＰＱＲＳＴＵＶＷＸＹＺａｂｃｄｅｆｇｈｉｊｋｌｍｎｏｐｑｒｓｔｕｖｗｘｙｚ＠．＿－–—‐＋（）＃\u3000\u00a0",
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz@._----+()#  ",
)

# A row that matches none of these holds nothing that a detector could find: 85 % of short posts stop here.
GATE = (
    r"(?i:[@＠]|[(\[]at[)\]]| at [a-z0-9\-]+ dot )|[0-9０-９][0-9０-９ .,\-()－]{5,}|[A-Za-z][0-9A-Da-d][0-9]{8}"
    r"|[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:|[路街道巷弄段村里][^\n]{0,24}[號号]"
    r"|(?i:line|instagram|facebook|(?-u:\b)ig|(?-u:\b)fb|fb\.com)|[賴零〇]|哀居|臉書|protected"
    r"|\n[0-9]{4}-[0-9]{1,2}-|作者|引述|※|(?m:^(?:推|噓|→) ?[A-Za-z])"
)

URL = re.compile(r"(?:https?://|www\.)[!-;=?-~]+")

EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+\-])[A-Za-z0-9][A-Za-z0-9._%+\-]{0,63} ?@ ?(?:[A-Za-z0-9\-]{1,63}\.){1,6}[A-Za-z]{2,24}"
    r"(?![A-Za-z0-9\-])"
    # spelled out against harvesters: both signs must be spelled, or the first stand in brackets
    r"|(?<![A-Za-z0-9._%+\-])[A-Za-z0-9][A-Za-z0-9._%+\-]{1,40} ?(?:[\[(]at[\])] ?| at )[A-Za-z0-9\-]{2,30}"
    r"(?: ?(?:[\[(]dot[\])]| dot ) ?[A-Za-z]{2,12}){1,3}(?![A-Za-z0-9])"
    r"|(?<![A-Za-z0-9._%+\-])[A-Za-z0-9][A-Za-z0-9._%+\-]{1,40} ?[\[(]at[\])] ?"
    r"(?:[A-Za-z0-9\-]{2,30}\.){1,3}[A-Za-z]{2,12}"
    r"|\[email[ \u00a0]protected\]",
    re.IGNORECASE,
)


def emails(text: str) -> Iterator[Span]:
    for found in EMAIL.finditer(text):
        yield found.span()


PHONE = re.compile(
    r"(?:(?<![0-9A-Za-z_/$＄])|(?<=[0-9][ap]m))(?<![0-9][.\-:])"
    r"(?:\(?\+?\(?886\)?[- ]{0,2}\(?0?\)?|\(?0)[1-9](?:[- ().]{0,2}[0-9]){6,9}"
    r"(?:[ ]?(?:#|分機[:： ]?|ext\.? ?|轉 ?)[0-9]{1,6})?(?![0-9A-Za-z_])"
    r"|(?<![0-9,.])09[0-9]{2},[0-9]{3},[0-9]{3}(?![0-9,])",
    re.IGNORECASE,
)
SPOKEN_PHONE = re.compile(r"[零〇0][九9][零〇一二三四五六七八九0-9]{8}(?![零〇一二三四五六七八九0-9])")
# Area codes and the digits that follow (numbering plan of the NCC). 0800 and 0809 are public by nature.
LANDLINES = (
    (r"02[2-8]\d{7}", "02"),
    (r"037\d{6}", "037"),
    (r"03[2-9]\d{6}", "03"),
    (r"049\d{7}", "049"),
    (r"04[2-3]\d{7}", "04"),
    (r"04[78]\d{6}", "04"),
    (r"05[2-8]\d{6}", "05"),
    (r"06[2-9]\d{6}", "06"),
    (r"07[2-9]\d{6,7}", "07"),
    (r"0826\d{5}", "0826"),
    (r"082\d{6}", "082"),
    (r"0836\d{5}", "0836"),
    (r"089\d{6}", "089"),
    (r"08[78]\d{6}", "08"),
)
LANDLINE = re.compile("|".join(f"(?:{pattern})" for pattern, _ in LANDLINES))
PHONE_WORD = re.compile(
    r"(?:電 ?話|手機|市話|專線|聯絡|連絡|洽詢|來電|傳真|撥打|撥|客服|打給|號碼|tel|phone|fax|mobile|call)"
    r"[^0-9\n]{0,8}$",
    re.I,
)
NOT_A_PHONE = re.compile(
    r"(?:訂單|單號|編號|流水號|序號|統編|統一編號|代碼|發票|學號|料號|型號|案號|字第|條碼|帳號|帳戶|戶頭|匯款|轉帳|"
    r"ISBN|NT\$?|NTD|USD|金額|(?<!預)約|ID|文章代碼|AID|sn|serial|no\.)[^0-9\n]{0,4}$|共[ :：]{0,2}$",
    re.IGNORECASE,
)
QUANTITY = re.compile(
    r"^ ?(?:元|塊|円|萬|億|人|次|張(?!先生|小姐|太太|老師|同學|媽|爸)|股|筆|票|點|%|％|公尺|公里|mm|cm|GB|MB)",
    re.IGNORECASE,
)


# A name of PTT that is a number: a0912345678.
NAMED_PHONE = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{1,2}(?P<number>09[0-9]{8})(?![0-9A-Za-z])")


def phones(text: str) -> Iterator[Span]:
    for found in PHONE.finditer(text):
        start = found.start()
        whole = found.group()
        # What follows a number after a space may be another one (an hour, the number of a list).
        for spelt in (whole, *(whole[: space.start()] for space in reversed([*re.finditer(" +", whole)]))):
            if _is_phone(text, start, spelt):
                yield start, start + len(spelt)
                break
    for found in SPOKEN_PHONE.finditer(text):
        if not found.group().isascii():
            yield found.span()
    for found in NAMED_PHONE.finditer(text):
        yield found.span("number")


def _is_phone(text: str, start: int, spelt: str) -> bool:
    end = start + len(spelt)
    number = re.split(r"#|分機|ext|轉", spelt, maxsplit=1, flags=re.IGNORECASE)[0]
    digits = re.sub(r"\D", "", number)
    abroad = digits.startswith("886")
    if abroad:
        digits = "0" + digits[3:].lstrip("0")
    before = text[max(0, start - 14) : start]
    if NOT_A_PHONE.search(before) or QUANTITY.match(text[end : end + 4]):
        return False
    if re.fullmatch(r"09\d{8}", digits):
        return not re.search(r"\d{4}[./]\d{2}[./]\d{2}", number)
    if not LANDLINE.fullmatch(digits):
        return False
    separated = re.match(r"\(0\d{1,3}\)|0\d{1,3}[- )]", number) is not None
    alone = before[-1:] in ("", "\n") and text[end : end + 1] in ("", "\n")  # a line of its own, below an address
    return separated or abroad or alone or PHONE_WORD.search(before) is not None


IPV4 = re.compile(r"(?:(?<![0-9A-Za-z_.\-/])|(?<=[iI][pP]))(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9a-z_]|\.[0-9])")
# A crawler that dropped the space between a push's address and its date: 114.25.91.24710/01 12:26
GLUED_IPV4 = re.compile(r"(?:(?<![0-9.])|(?<=:[0-9]{2}))(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?=[0-9]{2}/[0-9]{2})")
IPV6 = re.compile(r"(?<![0-9A-Za-z:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![0-9A-Za-z:])")
VERSION_BEFORE = re.compile(
    r"(?:\bv|ver\.?|version|版本|版|韌體|firmware|driver|驅動(?:程式)?|chrome|firefox|edge|safari|build|更新(?:到|至|為)?|"
    r"升級?(?:到|至|為)|章節?|第|§|ios|android|app|release|rev\.?|SDK|bios|條|節|圖|表|式|日期)[ :：=]{0,3}$",
    re.IGNORECASE,
)
VERSION_AFTER = re.compile(r"^ ?(?:版|節|章|條|小節|更新|beta|release)", re.IGNORECASE)


def addresses_of_machines(text: str) -> Iterator[Span]:
    for found in IPV4.finditer(text):
        start, end = found.span()
        parts = found.group().split(".")
        plain = all(int(part) <= 255 and part == str(int(part)) for part in parts)
        if (
            plain
            and not VERSION_BEFORE.search(text[max(0, start - 14) : start])
            and not VERSION_AFTER.match(text[end : end + 8])
        ):
            yield start, end
    for found in GLUED_IPV4.finditer(text):
        yield found.span()
    for found in IPV6.finditer(text):
        candidate = found.group()
        if not any(c.isdigit() for c in candidate) or len(candidate) < 6:
            continue
        try:
            ipaddress.IPv6Address(candidate)
        except ValueError:
            continue
        yield found.span()


NATIONAL_ID = re.compile(r"(?<![A-Za-z0-9_\-])[A-Za-z][1289A-Da-d][0-9]{8}(?![A-Za-z0-9_])")
ID_WORD = re.compile(r"(?:身分證|身份證|居留證|統一證號)[^A-Za-z0-9\n]{0,10}$")
LETTER = {letter: value for value, letter in enumerate("ABCDEFGHJKLMNPQRSTUVXYWZIO", start=10)}


def valid_national_id(code: str) -> bool:
    """National (1, 2), new residence (8, 9) and old residence (A-D) ids: weighted sum divisible by 10."""
    code = code.upper()
    first = LETTER[code[0]]
    second = LETTER[code[1]] % 10 if code[1].isalpha() else int(code[1])
    digits = [first // 10, first % 10, second, *map(int, code[2:])]
    return sum(d * w for d, w in zip(digits, (1, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1), strict=True)) % 10 == 0


def national_ids(text: str) -> Iterator[Span]:
    for found in NATIONAL_ID.finditer(text):
        if valid_national_id(found.group()) or ID_WORD.search(text[max(0, found.start() - 20) : found.start()]):
            yield found.span()


HANDLE = r"(?P<handle>@?[A-Za-z0-9_][A-Za-z0-9._\-]{2,29})"
# "ID: x", "帳號是x", ": x", "@x": after these any word is a handle.
NAMED = (
    r"(?:(?:id|帳號)(?:是)?[ ]{0,2}(?:[:：=是為→「]|叫做?)?[ ]{0,2}|[ ]{0,2}[:：=是→「][ ]{0,2}(?:id[:： ]{0,2})?"
    r"|[ ]{0,2}[(（][ ]?(?:id[:： ]{0,2})?|[ ]{0,2}(?=@))"
)
# After looser words (我的ig x, 賴我x, IG搜x) only what looks like a handle: letters with a digit, dot or underscore.
LOOSE = r"[ 的是為叫做找搜尋索私訊密改成換名稱字帳號我你妳他她給加小編主管追蹤新開id]{0,8}"
LOOKS = r"(?P<other>@?(?=[A-Za-z0-9.\-]{0,29}[0-9._])(?=[0-9._\-]{0,29}[A-Za-z])[A-Za-z0-9_][A-Za-z0-9._\-]{2,29})"


def _site(latin: str, han: str) -> re.Pattern[str]:
    # A Latin name stands alone: `fb` inside a hash (…28fbc44cf…) or `ig` in `ignore.1` names no account.
    name = rf"(?<![A-Za-z0-9<])(?:(?:{latin})(?=id|[^A-Za-z0-9])|{han})"
    return re.compile(rf"{name}[ ]?(?:🆔|的|官方帳號|官方)?[ ]?(?:{NAMED}{HANDLE}|{LOOSE}{LOOKS})", re.IGNORECASE)


LINE_ID = _site("line", "賴")
IG_ID = _site("ig|instagram", "哀居")
FB_ID = _site("fb|facebook", "臉書")
# A name holds no word of a sentence: 臉書名字她看得到是Lo and 臉書搜尋或LINE掃描 name nobody.
FB_NAME = re.compile(
    r"(?<![A-Za-z<])(?:fb|facebook|臉書)(?:(?:搜尋|搜(?!尋))[:： ]?(?!功能|結果|不到|紀錄|引擎|欄)"
    r"|(?:名字|名稱|暱稱)(?:(?:是|叫做?|為|[:： ]){1,2}|(?=[A-Za-z])))"
    r"(?P<handle>(?:(?![她我他你妳您它們看是有得到或及和與請可會]|的粉)[\u4e00-\u9fffA-Za-z]){2,16}?"
    r"(?: [A-Z][a-z]{1,12})?)(?=就|[，,。！!？?、\s)]|$)",
    re.IGNORECASE,
)
FB_PERSON = re.compile(
    r"(?<![A-Za-z<])(?i:fb|facebook|臉書) ?[:：] ?(?P<handle>[A-Z][a-z]{1,15}(?: [A-Z][a-z]{1,15}){1,2})(?![A-Za-z])"
)
PROFILE = re.compile(
    r"(?<![A-Za-z0-9\-])(?P<site>instagram|facebook|fb)\.(?:com|me)/(?:profile\.php\?id=)?"
    r"(?P<handle>[~@%A-Za-z0-9_.\-]{3,60})"
    # Shops, stores and events stand on other hosts and paths of line.me, and name nobody.
    r"|(?<![A-Za-z0-9.\-])(?P<line>(?:www\.)?line\.me/(?:R/)?ti/[pg]2?/|page\.line\.me/)"
    r"(?P<line_handle>[~@%A-Za-z0-9_.\-]{3,60})",
    re.IGNORECASE,
)
NOT_A_PROFILE = {
    "p",
    "reel",
    "reels",
    "tv",
    "stories",
    "explore",
    "share",
    "sharer",
    "watch",
    "groups",
    "pages",
    "events",
    "photo",
    "photo.php",
    "permalink.php",
    "story.php",
    "hashtag",
    "video",
    "videos",
    "media",
    "plugins",
    "dialog",
    "profile.php",
    "pg",
    "help",
    "shop",
    "marketplace",
    "ads",
    "business",
    "tr",
    "stickershop",
    "gift",
    "themeshop",
}
VERSION = re.compile(r"v?[0-9]+(?:[.\-][0-9]+)*[a-z]?", re.IGNORECASE)
NOT_A_HANDLE = re.compile(
    r"^(?:(?:points?|pay)[0-9]+$|b[0-9]{1,4}$|pay|points?|today|shopping|music|tv|webtoon|bank|travel|taxi|game|games|id|ig|fb|line|http|https|www|com|and|the|"
    r"call|app|bot|store|gift|up|out|in|on|of|for|is|are|or|not|with|from|live|official|messenger|beta|group)\b",
    re.IGNORECASE,
)


def _handles(pattern: re.Pattern[str], text: str) -> Iterator[Span]:
    for found in pattern.finditer(text):
        group = next(name for name, value in found.groupdict().items() if value is not None)
        handle = found.group(group)
        bare = handle.lstrip("@").rstrip(".-")
        if len(bare) < 3 or NOT_A_HANDLE.match(bare) or (group == "other" and VERSION.fullmatch(bare)):
            continue
        if bare.lower() in NOT_A_NAME and "@" not in handle:
            continue
        start = found.start(group)
        yield start, start + len(handle.rstrip(".-"))


def line_ids(text: str) -> Iterator[Span]:
    yield from _handles(LINE_ID, text)
    yield from _profiles(("line",), text)


def ig_ids(text: str) -> Iterator[Span]:
    yield from _handles(IG_ID, text)
    yield from _profiles(("instagram",), text)


def fb_ids(text: str) -> Iterator[Span]:
    yield from _profiles(("facebook", "fb"), text)
    yield from _handles(FB_PERSON, text)
    yield from _handles(FB_ID, text)
    yield from _handles(FB_NAME, text)


def _profiles(sites: tuple[str, ...], text: str) -> Iterator[Span]:
    for found in PROFILE.finditer(text):
        group = "line_handle" if found["line"] else "handle"
        site, handle = ("line" if found["line"] else found["site"].lower()), found[group]
        if site in sites and handle.lower() not in NOT_A_PROFILE:
            yield found.start(group), found.start(group) + len(handle.rstrip(".-"))


BANK = re.compile(
    r"(?<![0-9A-Za-z_.\-])(?:[(（]?[0-9]{3}[)）]?[- ]{0,2})?[0-9]{3,17}(?:[- ][0-9]{1,14}){0,4}(?![0-9A-Za-z_\-])"
)
CODE_AND_ACCOUNT = re.compile(
    r"[(（]?[0-8][0-9]{2}[)）]?[- ]{1,2}[0-9]{10,16}"
)  # three digits of the bank, then the account
BANK_WORD = re.compile(
    r"(?:帳號|帳戶|戶頭|匯|轉帳|轉到|轉錯|轉入|存入|存摺|捐款|贊助|訂金|尾款|銀行|郵局|局號|分行|信用卡|卡號|account|a/c|iban"
    r"|合作金庫|[合土台臺華彰一高]銀|台新|聯邦|星展|京城|渣打|花旗|國泰|中信|玉山|富邦|兆豐|永豐|元大|凱基|新光)[^\n]{0,18}$",
    re.IGNORECASE,
)
PAID_AFTER = re.compile(r"^ ?(?:匯款|轉帳|入帳)")
NOT_A_BANK = re.compile(
    r"(?:訂單|單號|編號|電話|手機|統編|發票|學號|序號|金額|日期|時間|共|總計|NT\$?|\$)[^0-9\n]{0,6}$", re.IGNORECASE
)


def luhn(digits: str) -> bool:
    doubled = [int(d) * (2 if i % 2 else 1) for i, d in enumerate(reversed(digits))]
    return sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0


def bank_accounts(text: str) -> Iterator[Span]:
    for found in BANK.finditer(text):
        start, end = found.span()
        digits = re.sub(r"\D", "", found.group())
        before = text[max(0, start - 28) : start]
        if not 10 <= len(digits) <= 17 or NOT_A_BANK.search(before[-14:]) or QUANTITY.match(text[end : end + 4]):
            continue
        card = len(digits) == 16 and digits[0] in "3456" and luhn(digits)
        named = BANK_WORD.search(before) or PAID_AFTER.match(text[end : end + 4])
        if card or named or CODE_AND_ACCOUNT.fullmatch(found.group()):
            yield start, end


HAN = r"[\u4e00-\u9fff]"
NUMBER = r"[0-9一二三四五六七八九十百]{1,5}"
CITY = (
    r"(?:[台臺][北中南東]|新北|桃園|高雄|基隆|新竹|嘉義|苗栗|彰化|南投|雲林|屏東|宜蘭|花蓮|澎湖|金門|連江|馬祖)[市縣]?"
)
# The part from the road on is searched; what stands before it is read backwards.
ROAD_ON = re.compile(
    rf"(?:路|街|大道|巷)(?: ?{NUMBER} ?段)?(?: ?{NUMBER} ?巷)?(?: ?{NUMBER} ?弄)?"
    rf" ?{NUMBER}(?:[-之~、]{NUMBER})? ?[號号]"
    rf"(?:[之\-]{NUMBER})?(?: ?[Bb]?{NUMBER} ?(?:樓|[Ff](?![A-Za-z])))?(?:[之\-]{NUMBER}(?![0-9]))?(?: ?{NUMBER}室)?"
)
UP_TO_ROAD = re.compile(
    rf"(?:(?:[0-9]{{3,6}} ?)?{CITY} ?)?(?:{HAN}{{1,3}}[區鄉鎮市] ?)?(?:{HAN}{{1,3}}[里村] ?)?(?:{NUMBER}鄰 ?)?"
    rf"{HAN}{{1,5}}$"
)
NOT_AN_ADDRESS = re.compile(r"^ ?(?:出口|公車|線|月台|高速|省道|國道|機|球|水門|隊|選手|店長|客)")


def addresses(text: str) -> Iterator[Span]:
    position = 0
    for found in ROAD_ON.finditer(text):
        window = max(position, found.start() - 30)
        before = UP_TO_ROAD.search(text[window : found.start()])
        if before and not NOT_AN_ADDRESS.match(text[found.end() : found.end() + 6]):
            yield window + before.start(), found.end()
            position = found.end()


# Where PTT prints who wrote: headers, quotes, edits, pushes. The id goes, the residue around it stays.
USER = re.compile(
    r"作者[:： ]{0,3}(?P<header>[A-Za-z][A-Za-z0-9]{1,11}(?: ?\([^\n]{0,40}?\))?)(?= *(?:看板|站內|\n|$))"
    r"|引述 ?《 ?(?P<quoted>[^》\n<]{1,60}?) ?》"
    r"|※ 編輯: (?P<editor>[A-Za-z][A-Za-z0-9]{1,11})(?= )"
    r"|※ 轉錄者: (?P<forwarder>[A-Za-z][A-Za-z0-9]{1,11})(?= )"
    r"|^(?P<embed>[a-z0-9._]{3,30})(?=\n[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:\n|$))"
    r"|^(?:推|噓|→) ?(?P<push>[A-Za-z][A-Za-z0-9]{1,11}) {0,12}:",
    re.MULTILINE,
)
MENTION = re.compile(
    r"(?<![A-Za-z0-9_.@＠/])[@＠](?!(?:property|override|staticmethod|classmethod|media|click|import|param|return|types|app|test"
    r"|dataclass|cache|component|keyframes|autowired|entity|bean|input|change|submit|angular|babel|vue|nestjs|deprecated)(?![A-Za-z0-9_]))"
    r"(?P<name>[A-Za-z0-9_][A-Za-z0-9_.]{2,29})(?![A-Za-z0-9_@(/])",
    re.IGNORECASE,
)


QUANTITY_NAME = re.compile(
    r"[0-9._]*(?:p|fps|g?hz|[mckµ]?m|[gmk]b|k?w|k|[ap]m|mah|v|x|nd|st|th)?", re.IGNORECASE
)  # 1080p@60fps
MAIL_HOST = re.compile(
    r"\.(?:edu|com|org|net|gov|idv|mil)(?:\.tw)?$", re.IGNORECASE
)  # the half of an address: @gm.x.edu.tw


def users(text: str) -> Iterator[Span]:
    for found in USER.finditer(text):
        group = next(name for name, value in found.groupdict().items() if value is not None)
        yield found.span(group)
    for found in MENTION.finditer(text):
        name = found["name"]
        if not MAIL_HOST.search(name) and not QUANTITY_NAME.fullmatch(name):
            yield found.span()


# In order: an earlier kind wins where spans overlap. The anchor is what no finding can lack: it spares the detector.
DETECTORS: tuple[tuple[str, Detector, re.Pattern[str]], ...] = (
    ("EMAIL", emails, re.compile(r"@|[(\[]at[)\]]| at |protected\]", re.IGNORECASE)),
    ("LINE_ID", line_ids, re.compile(r"line|賴", re.IGNORECASE)),
    ("IG_ID", ig_ids, re.compile(r"ig|instagram|哀居", re.IGNORECASE)),
    ("FB_ID", fb_ids, re.compile(r"fb|facebook|臉書", re.IGNORECASE)),
    ("ID", national_ids, re.compile(r"[A-Za-z][1289A-Da-d][0-9]{8}")),
    ("IP", addresses_of_machines, re.compile(r"[0-9]\.[0-9]{1,3}\.[0-9]|[0-9A-Fa-f:]:[0-9A-Fa-f]{0,4}:")),
    ("ADDRESS", addresses, re.compile(r"[號号]")),
    ("PHONE", phones, re.compile(r"0\)?[1-9]|886|[零〇][九9]")),
    ("BANK", bank_accounts, re.compile(r"[0-9]{3}[0-9 )）\-]{6}")),
    ("USER", users, re.compile(r"作者|引述|※|@[A-Za-z0-9_]|[推噓→]|\n[0-9]{4}-")),
)
INSIDE_URLS = {"EMAIL", "LINE_ID", "IG_ID", "FB_ID", "IP"}  # the rest read digits of a link as numbers of people


def find(text: str) -> list[tuple[int, int, str]]:
    """Spans of personal data `(start, end, kind)`, in order, never overlapping."""
    folded = text.translate(FOLD) if not text.isascii() else text
    links = [found.span() for found in URL.finditer(folded)]
    taken: list[tuple[int, int, str]] = []
    for kind, detector, anchor in DETECTORS:
        if not anchor.search(folded):
            continue
        for start, end in detector(folded):
            in_link = kind not in INSIDE_URLS and _overlaps(links, start, end)
            if not in_link and not _overlaps(taken, start, end):
                insort(taken, (start, end, kind))
    return taken


def _overlaps(spans: Sequence[tuple[int, int] | tuple[int, int, str]], start: int, end: int) -> bool:
    """Whether one of the spans, which are in order and apart, shares a character with this one."""
    after = bisect_left(spans, (end,))
    return after > 0 and spans[after - 1][1] > start


def mask(text: str) -> tuple[str, Counter[str]]:
    """The text with personal data replaced by `<EMAIL>`, `<PHONE>`, …, and how many of each kind."""
    parts: list[str] = []
    counts: Counter[str] = Counter()
    position = 0
    for start, end, kind in find(text):
        parts += (text[position:start], f"<{kind}>")
        counts[kind] += 1
        position = end
    return ("".join((*parts, text[position:])), counts) if counts else (text, counts)


def mask_series(texts: pl.Series) -> tuple[pl.Series, Counter[str]]:
    """`mask` over a column: only rows that pass the gate are read by Python."""
    candidates = texts.str.contains(GATE).fill_null(value=False)
    if not candidates.any():
        return texts, Counter()
    counts: Counter[str] = Counter()
    masked = []
    for text in texts.filter(candidates):
        clean, found = mask(text)
        masked.append(clean)
        counts.update(found)
    return texts.clone().scatter(candidates.arg_true(), pl.Series(masked, dtype=pl.String)), counts
