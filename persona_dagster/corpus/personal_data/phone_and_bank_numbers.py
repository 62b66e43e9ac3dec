"""Numbers by which somebody is reached or paid: telephones, bank accounts and cards.

Shape alone is a price or a part number as often as not: checksums (python-stdnum, the national id's own), the numbering
plans (phonenumbers) and the words around decide. All texts here are normalised.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain

import phonenumbers
from phonenumbers import PhoneNumberType
from stdnum import iban, luhn

from persona_dagster.corpus.personal_data.addresses import VERSION_BEFORE
from persona_dagster.corpus.personal_data.homophones import sounds_like
from persona_dagster.corpus.personal_data.normalise import digits_of

Span = tuple[int, int]

GAP = r"[ \-.,、…/_~()*|\u2500-\u27bf\U0001f300-\U0001faff]{0,3}"  # what may part the digits of one number
GAP_OF_LINES = GAP.replace("[ ", "[ \n")
MOBILE = re.compile(
    rf"(?<![0-9])\(?0{GAP}9(?:{GAP}[0-9]){{8}}(?![0-9])|(?<![0-9])09[0-9]{{2}}\n[0-9]{{3}}\n[0-9]{{3}}(?![0-9])"
)
NO_ZERO = re.compile(rf"(?<![0-9])9[0-9]{{2}}{GAP}[0-9]{{3}}{GAP}[0-9]{{3}}(?![0-9])")  # 0 to be put before it
REST = re.compile(
    rf"(?<![0-9])09[, 。]{{0,2}}(?:然後|再|接|後面|加)[^0-9\n]{{0,4}}(?P<rest>[0-9](?:{GAP}[0-9]){{7}})(?![0-9])"
)
SEPTEMBER = re.compile(r"09[\-./][0-9]{1,2}[\-./](?:19|20)[0-9]{2}(?![0-9])")  # 09/08/2026 17:20
YEAR_BEFORE = re.compile(r"(?:19|20)[0-9]{2}[\-./]$")
PAIRS = re.compile(r"[0-9]{1,2}(?:[ ,、./\-]{1,2}[0-9]{1,2})+")  # of lotteries, days, scores
PAIR_BEFORE, PAIR_AFTER = re.compile(r"[0-9][ ,、./\-]{1,2}$"), re.compile(r"^[ ,、./\-]{1,2}[0-9]{1,2}(?![0-9])")
LOTTERY = re.compile(r"彩|樂透|開[獎出]|[獎牌]號|中獎|539|槓龜|特別號")
TOKEN_BEFORE, TOKEN_AFTER = re.compile(r"[0-9A-Za-z]*\Z"), re.compile(r"^[0-9A-Za-z]*")

ABROAD = re.compile(
    r"(?<![0-9A-Za-z+\-])(?:\(?\+ ?|(?<![0-9] )00)\(?[1-9][0-9]{0,2}\)?(?:[ \-.()/]{0,3}[0-9]){6,12}(?![0-9])"
    r"|(?<![0-9A-Za-z.+\-])86[ \-]?1[3-9][0-9](?:[ \-]?[0-9]{4}){2}(?![0-9])"
    r"|(?<![0-9A-Za-z.])\(?886\)?(?:[ \-.()/]{0,3}[0-9]){8,10}(?![0-9])"
)
LANDLINE = re.compile(
    r"(?:(?<![0-9A-Za-z_$])|(?<=[0-9][ap]m))(?<![0-9][.\-:])\(?0[2-8](?:[- ().]{0,2}[0-9]){6,9}(?!(?!ext)[0-9A-Za-z_])",
    re.IGNORECASE,
)
EXTENSION = re.compile(r"^[ ]?(?:#|分機[: ]?|ext\.? ?|轉 ?)[0-9]{1,6}", re.IGNORECASE)
# Within one area its code is left out; years and prices of the same form are not meant.
LOCAL = re.compile(
    r"(?<![0-9A-Za-z.+\-$~])(?<!\+ )(?!(?:19|20)[0-9]{2}-?(?:19|20)|412"
    r"|[0-9]{2,3}0-?[0-9]{3}0)[2-8][0-9]{2,3}-?[0-9]{4}(?![0-9A-Za-z\-~])"
)
CALLED = re.compile("電話|市話|家電|傳真|專線|[撥打洽]|訂[位餐]|預約|來電|分機|找.{0,3}[先小老]")
CALL_BEFORE = re.compile(r"(?:電話|市話|家電|傳真|專線|[撥打]|訂[位餐]|預約|洽|來電)[^0-9\n$,]{0,6}$")
CALL_AFTER = re.compile(r"^ ?[(,]?(?:分機|打[這給去來]|訂[位餐]|找[^0-9\n]{0,3}(?:先生|小姐|老闆))")
CHINA = re.compile(
    r"(?:微 ?信|手機|電話|號碼|同號|聯[絡繫系]|联系|whatsapp|支付寶|vx|wechat)[^0-9\n]{0,8}"
    r"(?P<number>1[3-9][0-9](?:[ \-]?[0-9]){8})(?![0-9])",
    re.IGNORECASE,
)
# an account there is a telephone, of whatever country
WHATSAPP = re.compile(
    r"whats ?app[^0-9\n+]{0,6}(?P<number>\+?[1-9](?:[ \-()]{0,2}[0-9]){8,13})(?![0-9])", re.IGNORECASE
)
PHONE_WORD = re.compile(
    r"(?:電 {0,3}話|手機|市話|專線|聯[絡繫]|連絡|洽詢?|來電|傳真|撥打?|客服|打給?|號碼"
    r"|tel|phone|fax|mobile|call)[^0-9\n]{0,8}$",
    re.I,
)
NOT_A_PHONE = re.compile(
    r"(?:訂單|單號|編號|流水號|序號|統編|統一編號|代碼|發票|學號|料號|貨號|型號|案號|字第|條碼|帳號|帳戶|戶頭|匯款|轉帳|批號|"
    r"ISBN|NT\$?|NTD|USD|\$|金額|(?<![預房屋車面])約|文章代碼|AID|(?<![A-Za-z])sn|serial"
    r"|commit|hash|sha)[^0-9\n]{0,4}$|共[ :]{0,2}$",
    re.IGNORECASE,
)
QUANTITY = re.compile(
    r"^ ?(?:元|塊|円|萬|億|人|次|張(?!先生|小姐|太太|老師|同學|媽|爸)|股|筆|票|點|%|公尺|公里|mm|cm|GB|MB)",
    re.IGNORECASE,
)


def phones(text: str) -> Iterator[Span]:
    # 0919887766一直 ends at 一, which 零九一九… does not: the text as it stands comes first.
    for read in dict.fromkeys((text, digits_of(text))):
        yield from _phones(read)
    if CALLED.search(text):
        yield from _local(digits_of(text))


def _local(digits: str) -> Iterator[Span]:
    for found in LOCAL.finditer(digits):
        before, after = preceding(digits, found.start()), digits[found.end() : found.end() + 8]
        called = CALL_BEFORE.search(before) or CALL_AFTER.match(after)
        if called and not NOT_A_PHONE.search(before) and not QUANTITY.match(after):
            yield found.start(), _with_extension(digits, found.end())


def _phones(digits: str) -> Iterator[Span]:
    for found in MOBILE.finditer(digits):
        if _is_mobile(digits, *found.span()):
            yield found.span()
    for found in REST.finditer(digits):
        yield found.span("rest")
    for found in NO_ZERO.finditer(digits):
        if PHONE_WORD.search(before := preceding(digits, found.start())) and not NOT_A_PHONE.search(before):
            yield found.span()
    for found in ABROAD.finditer(digits):
        number = re.sub(r"\(0\)|\D", "", found.group())
        number = number.removeprefix("00")
        if _valid(f"+{number}", None) and not NOT_A_PHONE.search(preceding(digits, found.start())):
            yield found.start(), _with_extension(digits, found.end())
    for found in LANDLINE.finditer(digits):
        start, whole = found.span()[0], found.group()
        # What follows a number after a space may be another one (an hour, the number of a list).
        for spelt in (whole, *(whole[: space.start()] for space in reversed([*re.finditer(" +", whole)]))):
            if _is_landline(digits, start, spelt):
                yield start, _with_extension(digits, start + len(spelt))
                break
    for found in WHATSAPP.finditer(digits):
        yield found.span("number")
    for found in CHINA.finditer(digits):
        yield found.span("number")


def preceding(text: str, start: int, length: int = 14) -> str:
    return text[max(0, start - length) : start]


def _with_extension(text: str, end: int) -> int:
    found = EXTENSION.match(text[end : end + 12])
    return end + found.end() if found else end


def _is_mobile(text: str, start: int, end: int) -> bool:
    before, after, spelt = preceding(text, start), text[end : end + 6], text[start:end]
    if NOT_A_PHONE.search(before) or YEAR_BEFORE.search(before) or SEPTEMBER.match(spelt):
        return False
    if "." in spelt and (VERSION_BEFORE.search(before) or re.fullmatch(r"0\.[0-9]{9}", spelt)):
        return False
    if re.fullmatch(r"[0-9]+", spelt):  # in a hash or a part number it is a part of something else
        left, right = TOKEN_BEFORE.search(before), TOKEN_AFTER.match(after)
        return not re.search("[0-9]", f"{left and left.group()}{right and right.group()}")
    listed = PAIR_BEFORE.search(before) or PAIR_AFTER.match(after) or LOTTERY.search(before)
    return not (PAIRS.fullmatch(spelt) and listed)


def _is_landline(text: str, start: int, spelt: str) -> bool:
    before, after = preceding(text, start), text[start + len(spelt) : start + len(spelt) + 6]
    counted = "-" not in spelt and QUANTITY.match(after)
    if NOT_A_PHONE.search(before) or counted or not _valid(re.sub(r"\D", "", spelt), "TW"):
        return False
    separated = re.match(r"\(0[0-9]{1,3}\)|0[0-9]{1,3}[- )]", spelt) is not None
    alone = before[-1:] in ("", "\n") and after[:1] in ("", "\n")  # a line of its own, below an address
    return separated or alone or PHONE_WORD.search(before) is not None


PERSONAL = {
    PhoneNumberType.FIXED_LINE,
    PhoneNumberType.MOBILE,
    PhoneNumberType.FIXED_LINE_OR_MOBILE,
    PhoneNumberType.VOIP,
}


def _valid(number: str, region: str | None) -> bool:
    """Whether the numbering plan knows it, and not as a free or paid service: 0800 names nobody."""
    try:
        parsed = phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        return False
    return phonenumbers.is_valid_number(parsed) and phonenumbers.number_type(parsed) in PERSONAL


BANK = re.compile(
    r"(?<![0-9A-Za-z_.\-])(?:\(?[0-9]{3}\)?[- ]{0,2})?[0-9]{3,17}(?:[- ][0-9]{1,14}){0,4}(?![0-9A-Za-z_\-])"
)
# A card: whole, in its groups or digit by digit, whatever parts them; its check digit decides.
CARD = re.compile(rf"(?<![0-9A-Za-z_.\-])[2-6](?:{GAP_OF_LINES}[0-9]){{13,18}}(?![0-9A-Za-z_\-])")
ISSUED = re.compile(r"3[47][0-9]{13}|3[068][0-9]{12}|35[0-9]{14}|[45][0-9]{15}|2[2-7][0-9]{14}|6[0-9]{15}|62[0-9]{17}")
# Four times four, which next to nothing else is, beside a word of cards: its check digit may have been miswritten.
FOUR_FOURS = re.compile(
    r"(?!(?:[0-9]{2}(?:[0-9]0|88|99)[ \-]){3})[3-6][0-9]{3}(?P<gap>[ \-.]?)[0-9]{4}(?P=gap)[0-9]{4}(?P=gap)[0-9]{4}"
    r"|3[47][0-9]{13}"
)
NOT_A_CARD = re.compile(r"會員|集點|點數|禮[品物]|儲值|健保|悠遊卡|一卡通|序號")
CARD_WORD = re.compile(r"卡|刷|盜|掛失|運通|綁|驗證|扣款|訂閱|到期|cvv|cvc|exp|visa|jcb|master|pay", re.IGNORECASE)
GROUPS = re.compile(r"[0-9]+|[0-9]{4,6}(?:X[0-9]{3,6}){1,3}(?:X[0-9]{1,3})?|[0-9](?:X[0-9])+")
# three digits of the bank, then the account
CODE_AND_ACCOUNT = re.compile(r"\(?[0-8][0-9]{2}\)?[- ]{1,2}[0-9]{10,16}|\([0-8][0-9]{2}\)[0-9]{10,16}")
# The same parted by one sign all along, or digit by digit: only right behind a word of banks.
PARTED_ACCOUNT = re.compile(
    r"(?<![0-9A-Za-z_.\-/])(?:[0-9]+(?P<sign> ?[\-_./*~|] ?| )[0-9]+(?:(?P=sign)[0-9]+)+|[0-9](?: [0-9]){9,18})"
    r"(?![0-9A-Za-z_\-/])"
)
BANK_WORD = re.compile(
    rf"(?:{sounds_like('帳號', '帳戶')}"
    r"|戶頭|匯|轉帳|轉到|轉錯|轉入|存入|存摺|捐款|贊助|訂金|尾款|銀行|郵局|局號|分行|信用卡|卡號|account|a/c|iban"
    r"|薪轉|薪水|撥款|入金|出金|收款|轉[至去我你他她給]|存簿|提款|金融卡|簽帳|盜刷|綁卡|刷卡"
    r"|(?<![A-Za-z])(?:visa|jcb|master ?card|amex|debit"
    r"|apple ?pay|atm)(?![A-Za-z])"
    r"|[商農]銀|郵政|[一二三五六七九十]信(?!義)|信合社|信用合作社|[農漁]會|王道|將來|連線|樂天"
    r"|richart|dawho|koko|ileo|(?:line|next|o-?) ?bank|數位帳|高銀"
    r"|京城|安泰|日盛|上海商"
    r"|合作金庫|[合土台臺華彰一高]銀|台新|聯邦|星展|京城|渣打|花旗|國泰|中信|玉山|富邦|兆豐|永豐|元大|凱基|新光|華南|合庫|華泰|陽信|板信|安泰|匯豐|台企|瑞興|遠銀)[^\n]{0,18}$",
    re.IGNORECASE,
)
GIRO = re.compile(r"劃撥[^0-9\n]{0,8}(?P<number>[0-9]{8})(?![0-9])")
POST_OFFICE = re.compile(r"局號[^0-9\n]{0,3}([0-9]{6,7})[^0-9\n]{0,4}帳號[^0-9\n]{0,3}([0-9]{6,7})(?![0-9])")
WALLET = re.compile(r"(?:街口|全支付|悠遊付|全盈|歐付寶|支付寶|橘子支)[^0-9\n]{0,8}(?P<number>[0-9]{8,12})(?![0-9])")
PRICES = re.compile(r"(?:[0-9]+(?:0|99)(?: |\Z)){2,}")
PAID_AFTER = re.compile(
    r"^ ?[(,]? ?(?:匯|轉帳|轉[我你他她給]|入帳|[\u4e00-\u9fff]{1,4}銀行?|郵局"
    r"|台新|聯邦|星展|渣打|花旗|國泰|中信|玉山|富邦|兆豐|永豐|元大|凱基|新光|華南|合庫"
    r"|土銀|台銀|彰銀|一銀|王道|將來|richart|line ?bank)",
    re.IGNORECASE,
)
NOT_A_BANK = re.compile(
    r"(?:訂單|單號|編號|電話|手機|統編|發票|學號|序號|金額|日期|時間|共|總計|NT\$?|\$)(?:(?!卡號|帳[號戶])[^0-9\n]){0,6}$",
    re.IGNORECASE,
)
IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?(?![A-Za-z0-9])")


def bank_accounts(text: str) -> Iterator[Span]:
    read = digits_of(text)
    for found in CARD.finditer(read):
        spelt = re.sub("[^0-9]+", "X", found.group())
        number = spelt.replace("X", "")
        before, behind = preceding(text, found.start()), text[found.end() : found.end() + 10]
        issued = ISSUED.fullmatch(number) and GROUPS.fullmatch(spelt) and luhn.is_valid(number)
        around = f"{before}\n{behind}"
        four = FOUR_FOURS.fullmatch(found.group()) and CARD_WORD.search(around) and not NOT_A_CARD.search(before)
        if (issued or four) and not NOT_A_BANK.search(before):
            yield found.span()
    for found in POST_OFFICE.finditer(text):
        yield found.span(1)
        yield found.span(2)
    readings = dict.fromkeys((text, read))
    for found in chain.from_iterable(pattern.finditer(one) for one in readings for pattern in (BANK, PARTED_ACCOUNT)):
        start, end = found.span()
        digits = re.sub(r"\D", "", found.group())
        before = preceding(text, start, 28)
        if (
            not 10 <= len(digits) <= 19
            or digits.startswith(("0800", "0809"))  # free of charge, and of companies
            or PRICES.fullmatch(found.group())
            or NOT_A_BANK.search(before[-14:])
            or QUANTITY.match(text[end : end + 4])
        ):
            continue
        named = BANK_WORD.search(before) or PAID_AFTER.match(text[end : end + 4])
        if named or CODE_AND_ACCOUNT.fullmatch(found.group()):
            yield start, end
    for found in IBAN.finditer(text):
        if iban.is_valid(found.group()):
            yield found.span()
    for found in chain(WALLET.finditer(text), GIRO.finditer(text)):
        yield found.span("number")
