"""Where somebody is reached: e-mail, network and street addresses. All texts here are normalised."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from persona_dagster.corpus.personal_data.homophones import sounds_like
from persona_dagster.corpus.personal_data.normalise import HAN_NUMERALS, lookalikes

Span = tuple[int, int]

EDGE_OF_LOCAL = r"(?<![A-Za-z0-9._%+\-])"
LOCAL = rf"{EDGE_OF_LOCAL}[A-Za-z0-9](?:[A-Za-z0-9._%+\-]{{0,62}}[A-Za-z0-9_+\-])?"
HOST = r"[A-Za-z0-9](?:[A-Za-z0-9\-]{0,61}[A-Za-z0-9])?"
TLD = (
    r"(?:c[o0]m|net|org|edu|gov|idv|mil|io|me|tw|hk|cn|jp|kr|sg|us|uk|de|fr|ru|ca|au|nz|eu|my|th|vn|ph|cc|xyz|co|info|app"
    r"|dev|ai|tv)"
)
PROVIDER = (
    r"(?:g-?mail|googlemail|yahoo|ymail|hotmail|outlook|live|livemail|icloud|msn|proton(?:mail)?|pchome|kimo|qq|163|126"
    r"|mail|zoho|gmx|hey|hinet)"
)
BRACKETED_AT = r"[ ]?(?:[(\[{<*#_~\-] ?(?:at|@|a|小?老?鼠) ?[)\]}>*#_~\-])[ ]?"
SPELT_AT = r"(?: at |/at/|[ ]?小老鼠[ ]?)"
SPELT_DOT = r"(?: ?[(\[{] ?(?:dot|點|\.) ?[)\]}] ?| dot |/dot/|_dot_| ?點 ?)"
DOT = rf"(?:\.| \. |{SPELT_DOT})"

EMAIL = re.compile(
    rf"{LOCAL} ?@ ?(?:{HOST}(?:\.| ?\. |{SPELT_DOT})){{1,6}}[A-Za-z]{{2,24}}(?![A-Za-z0-9\-])"
    # parted by spaces
    rf"|{LOCAL} ?@ ?{HOST} ?\. ?{TLD}(?![A-Za-z0-9])"
    rf"|{LOCAL} ?@ ?[\u4e00-\u9fff]{{2,6}}(?:\.{TLD}|信箱)(?![A-Za-z0-9])"
    rf"|{LOCAL} ?@ (?:[A-Za-z0-9] ){{3,20}}\. ?(?:[A-Za-z] ?){{2,3}}(?![A-Za-z])"
    r"|(?<![A-Za-z0-9])(?:[A-Za-z0-9._+\-] ){2,40}@ (?:[A-Za-z0-9.\-] ?){3,40}\. ?(?:[A-Za-z] ?){2,3}(?![A-Za-z])"
    # a stop or a comma where the dot should be: only before what ends a host
    rf"|{LOCAL} ?@ ?{HOST}(?:[.,。·]{HOST}){{0,3}}[,。]{TLD}(?![A-Za-z0-9])"
    # spelt out against harvesters: both signs spelt, or the first one in brackets
    rf"|{LOCAL}{BRACKETED_AT}{HOST}(?:{DOT}{HOST}){{1,4}}(?![A-Za-z0-9])"
    rf"|{LOCAL}{SPELT_AT}{HOST}(?:{SPELT_DOT}{HOST}){{0,2}}{SPELT_DOT}{TLD}(?![A-Za-z0-9])"
    rf"|{LOCAL}[ ]?小老鼠[ ]?{HOST}(?:\.{HOST}){{1,3}}(?![A-Za-z0-9])"
    rf"|{LOCAL} ?在 ?{PROVIDER}{DOT}{TLD}(?:{DOT}tw)?(?![A-Za-z0-9])"
    # "at" behind what is no word, or any sign, before a host that only has mail on it
    rf"|{EDGE_OF_LOCAL}(?=[A-Za-z]{{0,30}}[0-9._])[A-Za-z0-9._]{{3,40}} (?:at|a) "
    rf"(?:{PROVIDER}{DOT}{TLD}(?:{DOT}tw)?|(?:g-?mail|yahoo|hotmail|outlook|icloud))"
    r"(?![A-Za-z0-9])"
    rf"|(?<![A-Za-z0-9._%+\-])[A-Za-z0-9][A-Za-z0-9._%+\-]{{0,40}}?(?:[._]at[._]|at_"
    rf"|[ ]?[^\sA-Za-z0-9._:,。，、/+\-]{{1,2}}[ ]?)"
    rf"{PROVIDER}(?:{DOT}|[^\w\s]{{1,2}}){TLD}(?:{DOT}tw)?(?![A-Za-z0-9])"
    r"|[\u4e00-\u9fffA-Za-z0-9]{1,16}@[\u4e00-\u9fffA-Za-z0-9\-]{1,30}\.(?:[台臺]灣|公司|中國|香港|集团|集團)"
    # the provider's name for the host
    rf"|{EDGE_OF_LOCAL}[A-Za-z0-9][A-Za-z0-9._\-]{{2,40}} ?@ ?{PROVIDER}(?:{DOT}{TLD}){{0,2}}(?![A-Za-z0-9])"
    r"|\[email[ ]protected\]",
    re.IGNORECASE,
)
# Half an address, where the provider's name stands for the rest.
MAILBOX = re.compile(
    r"(?<![A-Za-z0-9@.])(?:g-?mail|hotmail|outlook|icloud|信箱|e-?mail)(?:帳號|信箱|地址)?(?:[^A-Za-z0-9\n@<,。]{1,5})"
    r"(?P<local>(?=[A-Za-z\-]{0,40}[0-9._])(?![A-Za-z0-9.\-]{1,40}\.(?:com|net|org|tw|io"
    r"|app)(?![A-Za-z]))(?=[0-9._\-]{0,40}[A-Za-z])[A-Za-z0-9][A-Za-z0-9._\-]{4,40})(?![A-Za-z0-9@])",
    re.IGNORECASE,
)
TOKEN = r"(?=[A-Za-z0-9]{0,20}[._0-9])(?=[0-9._]{0,9}[A-Za-z]{2})[A-Za-z0-9][A-Za-z0-9._\-]{3,40}"
PROVIDED = re.compile(
    rf"(?:(?<![A-Za-z])g|奇摩|雅虎|yahoo) ?信箱[ :是為]{{0,3}}(?P<before>{TOKEN})"
    rf"|(?<![A-Za-z0-9._\-@])(?P<after>{TOKEN})(?=[^A-Za-z0-9\n]{{0,6}}[後接@][^A-Za-z0-9\n]{{0,6}}{PROVIDER})",
    re.IGNORECASE,
)
SERVICE = re.compile(r"git@|noreply@", re.IGNORECASE)


def emails(text: str) -> Iterator[Span]:
    for found in EMAIL.finditer(text):
        if not SERVICE.match(found.group()):
            yield found.span()
    for found in MAILBOX.finditer(text):
        yield found.span("local")
    for found in PROVIDED.finditer(text):
        yield found.span("before" if found["before"] else "after")


POINT = r"(?:\.|\[\.\]|\(\.\))"
IPV4 = re.compile(
    rf"(?:(?<![0-9A-Za-z_.\-/])|(?<=[iI][pP])|(?<=://))(?:[0-9]{{1,3}}{POINT}){{3}}[0-9]{{1,3}}(?![0-9a-z_]|\.[0-9])"
)
# A crawler that dropped the space between a push's address and its date: 114.25.91.24710/01 12:26
GLUED_IPV4 = re.compile(r"(?:(?<![0-9.])|(?<=:[0-9]{2}))(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?=[0-9]{2}/[0-9]{2})")
IPV6 = re.compile(r"(?<![0-9A-Za-z:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![0-9A-Za-z:])")
# Every router has them, or everybody asks them for names: they lead to nobody.
HOUSEHOLD = re.compile(
    r"(?:10|127|255|192\.168|172\.(?:1[6-9]|2[0-9]|3[01]))\.|(?:1\.1\.1\.1|1\.0\.0\.1|8\.8\.[84]\.[84]|9\.9\.9\.9"
    r"|168\.95\.1(?:92)?\.1)$"
)
VERSION_BEFORE = re.compile(
    r"(?:\bv|ver\.?|version|版本|版|韌體|firmware|driver|驅動(?:程式)?|chrome|firefox|edge|safari|build|python|java|node|php"
    r"|cuda|torch|mysql|nginx|office|windows|linux|kernel|更新(?:到|至|為)?|"
    r"升級?(?:到|至|為)|章節?|第|§|ios|android|app|release|rev\.?|SDK|bios|條|節|圖|表|式|日期)[ :=]{0,3}$",
    re.IGNORECASE,
)
VERSION_AFTER = re.compile(r"^ ?(?:版|節|章|條|小節|更新|beta|release)", re.IGNORECASE)


def addresses_of_machines(text: str) -> Iterator[Span]:
    for found in IPV4.finditer(text):
        start, end = found.span()
        parts = re.findall("[0-9]+", found.group())
        plain = all(int(part) <= 255 and part == str(int(part)) for part in parts)
        if (
            plain
            and not HOUSEHOLD.match(".".join(parts))
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


HAN = r"[\u4e00-\u9fff]"
CIPHER = rf"[0-9{HAN_NUMERALS}十廿卅百拾佰]"
NUMBER = rf"{CIPHER}(?: ?{CIPHER}){{0,4}}"
PART = r"[ \-/,.、|_*~()\[\]\n]{0,2}"  # what may part the parts of an address
CITY = (
    r"(?:(?:[台臺][北中南東]|新北|桃園|高雄|基隆|新竹|嘉義|苗栗|彰化|南投|雲林|屏東|宜蘭|花蓮|澎湖|金門|連江|馬祖)[市縣]?"
    r"|[北中南高桃竹雄]市)"
)
# The part from the road on is searched; what stands before it is read backwards.
ROAD_ON = re.compile(
    rf"(?:(?:路|街|大道|巷|(?P<village>[村里]))(?:{PART}{NUMBER} ?鄰)?"
    rf"|(?P<hamlet>[村里](?:(?![路街道巷段鎮鄉市區號]){HAN}){{1,4}}?))"
    rf"(?:{PART}(?:[東西南北中]?{NUMBER}|[東西南北]) ?段)?"
    rf"(?:{PART}{NUMBER} ?巷)?(?:{PART}{NUMBER} ?弄)?(?:{PART}{NUMBER} ?衖)?"
    rf"{PART}(?:第|[Nn][Oo]\.? ?)?{NUMBER}(?: ?[-之~、] ?{NUMBER})?(?:{PART}(?:[號号]|ㄏㄠˋ?)(?: ?[之\-] ?{NUMBER})?"
    rf"(?:{PART}[Bb]?{NUMBER} ?(?:樓|[Ff](?![A-Za-z])))?|(?P<floor> ?(?:樓|[Ff](?![A-Za-z]))))"
    rf"(?:[之\-]{NUMBER}(?![0-9]))?(?: ?{NUMBER}室)?"
)
UP_TO_ROAD = re.compile(
    rf"(?:(?:[0-9]{{3,6}} ?)?{CITY}{PART})?(?P<district>{HAN}{{1,3}}[區鄉鎮市]{PART})?"
    rf"(?:{HAN}{{1,3}}[里村]{PART})?(?:{NUMBER}鄰{PART})?"
    rf"{HAN}{{1,5}}$"
)
CALLED = re.compile(  # said to be one: without a road, too
    rf"(?:{sounds_like('住址')}|地[址只止]|戶籍地|addr(?:ess)?|[寄收]件地)[ :是為]{{1,3}}"
    rf"(?P<place>(?:{HAN}|[0-9A-Za-z\-/ ]){{3,30}}?[0-9] ?[號号](?:{PART}{NUMBER} ?(?:樓|[Ff]))?)",
    re.IGNORECASE,
)
# As the post office spells it abroad: number, lane, section, road, then district and city.
ROAD = (
    r"(?:[A-Z][A-Za-z'\-]{1,15} ){1,4}(?:(?:[NESW]|[0-9](?:st|nd|rd|th))\.? ){0,2}"
    r"(?:Rd|Road|St|Street|Ave|Avenue|Blvd|Boulevard)(?![A-Za-z])\.?"
)
LANES = r"(?:(?:Ln|Lane|Aly|Alley|Sec|Section)\.? ?[0-9]{1,4},? ?){0,4}"
CITY_ABROAD = r"(?:, ?[A-Z][A-Za-z'\-]*\.?(?: [A-Z][A-Za-z'\-]*\.?){0,2})"
ROMAN = re.compile(
    rf"(?<![A-Za-z])(?:[0-9]{{1,2}}F\.?(?:-[0-9]{{1,2}})?,? ?)?[Nn]o\.? ?[0-9]{{1,4}}(?:-[0-9]{{1,3}})?,? ?{LANES}"
    rf"{ROAD}{CITY_ABROAD}{{0,4}}(?:,? [0-9]{{3,6}}(?![0-9]))?"
    # the number without its sign, or last
    rf"|(?<![A-Za-z0-9])(?:[0-9]{{1,2}}F\.?, ?)?[0-9]{{1,4}},? {ROAD}{CITY_ABROAD}{{1,4}}"
    rf"|(?<![A-Za-z]){ROAD},? ?{LANES}[Nn]o\.? ?[0-9]{{1,4}}{CITY_ABROAD}{{0,4}}"
)
NOT_AN_ADDRESS = re.compile(r"^ ?(?:出口|公車|線|月台|高速|省道|國道|機|球|水門|隊|選手|店長|客)")


def addresses(text: str) -> Iterator[Span]:
    for found in CALLED.finditer(text):
        yield found.span("place")
    for found in ROMAN.finditer(text):
        yield found.span()
    yield from _on_roads(text)
    if (read := lookalikes(text)) != text:
        yield from _on_roads(read)


def _on_roads(text: str) -> Iterator[Span]:
    position = 0
    for found in ROAD_ON.finditer(text):
        window = max(position, found.start() - 30)
        before = UP_TO_ROAD.search(text[window : found.start()])
        # A village and its number, or a road and a floor, only with a district before it.
        thin = found["village"] or found["hamlet"] or found["floor"]
        if (
            before
            and (before["district"] or not thin)
            and not NOT_AN_ADDRESS.match(text[found.end() : found.end() + 6])
        ):
            yield window + before.start(), found.end()
            position = found.end()
