"""Numbers that name a person: telephones, identity cards, passports, plates, students, bank accounts.

Shape alone is a price or a part number as often as not: checksums (python-stdnum, the national id's own), the numbering
plans (phonenumbers) and the words around decide. All texts here are normalised.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import phonenumbers
from phonenumbers import PhoneNumberType
from stdnum import iban, luhn

from persona_dagster.corpus.personal_data.normalise import digits_of
from persona_dagster.corpus.personal_data.places import VERSION_BEFORE

Span = tuple[int, int]

GAP = r"[ \-.,、…/_~()*|\u2500-\u27bf\U0001f300-\U0001faff]{0,3}"  # what may part the digits of one number
MOBILE = re.compile(rf"(?<![0-9])\(?0{GAP}9(?:{GAP}[0-9]){{8}}(?![0-9])")
NO_ZERO = re.compile(rf"(?<![0-9])9[0-9]{{2}}{GAP}[0-9]{{3}}{GAP}[0-9]{{3}}(?![0-9])")  # 0 to be put before it
REST = re.compile(
    rf"(?<![0-9])09[, 。]{{0,2}}(?:然後|再|接|後面|加)[^0-9\n]{{0,4}}(?P<rest>[0-9](?:{GAP}[0-9]){{7}})(?![0-9])"
)
YEAR_BEFORE = re.compile(r"(?:19|20)[0-9]{2}[\-./]$")
PAIRS = re.compile(r"[0-9]{1,2}(?:[ ,\-][0-9]{1,2})+")
PAIR_BEFORE, PAIR_AFTER = re.compile(r"[0-9][ ,\-]$"), re.compile(r"^[ ,\-][0-9]{1,2}(?![0-9])")
TOKEN_BEFORE, TOKEN_AFTER = re.compile(r"[0-9A-Za-z]*\Z"), re.compile(r"^[0-9A-Za-z]*")

ABROAD = re.compile(
    r"(?<![0-9A-Za-z+])(?:\(?\+ ?|00)\(?[1-9][0-9]{0,2}\)?(?:[ \-.()/]{0,3}[0-9]){6,12}(?![0-9])"
    r"|(?<![0-9A-Za-z.])\(?886\)?(?:[ \-.()/]{0,3}[0-9]){8,10}(?![0-9])"
)
LANDLINE = re.compile(
    r"(?:(?<![0-9A-Za-z_$])|(?<=[0-9][ap]m))(?<![0-9][.\-:])\(?0[2-8](?:[- ().]{0,2}[0-9]){6,9}(?!(?!ext)[0-9A-Za-z_])",
    re.IGNORECASE,
)
EXTENSION = re.compile(r"^[ ]?(?:#|分機[: ]?|ext\.? ?|轉 ?)[0-9]{1,6}", re.IGNORECASE)
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
    r"ISBN|NT\$?|NTD|USD|\$|金額|(?<!預)約|文章代碼|AID|(?<![A-Za-z])sn|serial"
    r"|commit|hash|sha)[^0-9\n]{0,4}$|共[ :]{0,2}$",
    re.IGNORECASE,
)
QUANTITY = re.compile(
    r"^ ?(?:元|塊|円|萬|億|人|次|張(?!先生|小姐|太太|老師|同學|媽|爸)|股|筆|票|點|%|公尺|公里|mm|cm|GB|MB)",
    re.IGNORECASE,
)


# O and I between the digits of a number, which only people read as 0 and 1
LOOKALIKE = re.compile(r"(?<![A-Za-z])[Oo](?=9)|(?<=[0-9])[OoIl](?=[0-9\-])|(?<=[0-9][OoIl])[OoIl](?=[0-9])")


def phones(text: str) -> Iterator[Span]:
    # 0919887766一直 ends at 一, which 零九一九… does not: the text as it stands comes first.
    alike = LOOKALIKE.sub(lambda found: "0" if found[0] in "Oo" else "1", text)
    for read in dict.fromkeys((text, alike, digits_of(text), digits_of(alike))):
        yield from _phones(read)


def _phones(digits: str) -> Iterator[Span]:
    for found in MOBILE.finditer(digits):
        if _is_mobile(digits, *found.span()):
            yield found.span()
    for found in REST.finditer(digits):
        yield found.span("rest")
    for found in NO_ZERO.finditer(digits):
        if PHONE_WORD.search(before := _before(digits, found.start())) and not NOT_A_PHONE.search(before):
            yield found.span()
    for found in ABROAD.finditer(digits):
        number = re.sub(r"\(0\)|\D", "", found.group())
        number = number.removeprefix("00")
        if _valid(f"+{number}", None) and not NOT_A_PHONE.search(_before(digits, found.start())):
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


def _before(text: str, start: int, length: int = 14) -> str:
    return text[max(0, start - length) : start]


def _with_extension(text: str, end: int) -> int:
    found = EXTENSION.match(text[end : end + 12])
    return end + found.end() if found else end


def _is_mobile(text: str, start: int, end: int) -> bool:
    before, after, spelt = _before(text, start), text[end : end + 6], text[start:end]
    if NOT_A_PHONE.search(before) or YEAR_BEFORE.search(before) or (spelt.isdigit() and QUANTITY.match(after)):
        return False
    if "." in spelt and VERSION_BEFORE.search(before):
        return False
    if re.fullmatch(r"[0-9]+", spelt):  # in a hash or a part number it is a part of something else
        left, right = TOKEN_BEFORE.search(before), TOKEN_AFTER.match(after)
        return not re.search("[0-9]", f"{left and left.group()}{right and right.group()}")
    return not (PAIRS.fullmatch(spelt) and (PAIR_BEFORE.search(before) or PAIR_AFTER.match(after)))


def _is_landline(text: str, start: int, spelt: str) -> bool:
    before, after = _before(text, start), text[start + len(spelt) : start + len(spelt) + 6]
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


NATIONAL_ID = re.compile(
    r"(?<![A-Za-z0-9_\-])(?:[A-Za-z][ \-._]?[1289](?:[ \-._]?[0-9]){8}|[A-Za-z][A-Da-d][0-9]{8})(?![A-Za-z0-9_])"
)
ID_WORD = re.compile(r"(?:身[分份]證|身證|居留證|統一證號|字號)[^A-Za-z0-9\n]{0,10}$")
LETTER = {letter: value for value, letter in enumerate("ABCDEFGHJKLMNPQRSTUVXYWZIO", start=10)}


def valid_national_id(code: str) -> bool:
    """National (1, 2), new residence (8, 9) and old residence (A-D) ids: weighted sum divisible by 10."""
    code = code.upper()
    first = LETTER[code[0]]
    second = LETTER[code[1]] % 10 if code[1].isalpha() else int(code[1])
    digits = [first // 10, first % 10, second, *map(int, code[2:])]
    return sum(d * w for d, w in zip(digits, (1, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1), strict=True)) % 10 == 0


def national_ids(text: str) -> Iterator[Span]:
    for found in NATIONAL_ID.finditer(digits_of(text)):
        code, before = re.sub("[ ._-]", "", found.group()), _before(text, found.start(), 20)
        if ID_WORD.search(before) or (valid_national_id(code) and not NOT_A_PHONE.search(before)):
            yield found.span()


FILLER = r"(?:號碼|證號|號|碼|編號|字號|number|num|no|id|是|為|寫|[ :#.=(/\"'\[]){0,6}"
PASSPORT = re.compile(
    rf"(?:護 ?照|港護|passport|[台臺]胞證|通行證|旅行證件?|travel document){FILLER}"
    r"(?P<number>[A-Z]{0,2}[0-9](?:[ \-._]?[0-9]){6,9}[A-Z]?|[A-Z]{2}[0-9]{6})(?![0-9A-Za-z])",
    re.IGNORECASE,
)
# As passports of here, of China and of Japan are numbered: known by its length where the word stands a little before.
BARE_PASSPORT = re.compile(
    r"(?<![0-9A-Za-z\-])(?:[0-9]{8}|[0-9](?:[ \-._]?[0-9]){8}|[A-Za-z]{1,2}[0-9]{7,8}[A-Za-z]?)(?![0-9A-Za-z\-])"
)
PASSPORT_AFTER = re.compile(r"^ ?(?:[是這那,(為]|我|[本張])*的?(?:護照|passport)", re.IGNORECASE)
PASSPORT_WORD = re.compile(
    r"(?:護 ?照|passport)[^\n0-9]{0,16}$|(?:護 ?照|passport)[^\n]{0,20}(?:的|是|:|號碼?)[ ]?$", re.IGNORECASE
)
DAY = re.compile(r"(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])")


def passports(text: str) -> Iterator[Span]:
    digits = digits_of(text)
    for found in PASSPORT.finditer(digits):
        if not DAY.fullmatch(re.sub("[^0-9]", "", found["number"])):
            yield found.span("number")
    for found in BARE_PASSPORT.finditer(digits):
        before, after = _before(digits, found.start(), 26), text[found.end() : found.end() + 14]
        if DAY.fullmatch(re.sub("[^0-9]", "", found.group())):
            continue
        named = PASSPORT_WORD.search(before) or PASSPORT_AFTER.match(after)
        if named and not NOT_A_PHONE.search(before) and not QUANTITY.match(after):
            yield found.span()


PLATE = (
    r"(?:[A-Z](?: ?[A-Z]){2}[\-._ ]{0,3}[0-9](?: ?[0-9]){3}"
    r"|[0-9]{4}[\- ]?(?:[A-Z][A-Z0-9]|[0-9][A-Z])|(?:[A-Z][A-Z0-9]|[0-9][A-Z])[\- ]?[0-9]{4}"
    r"|[A-Z]{3}-?[0-9]{3}|[0-9]{3}-?[A-Z]{3})"
)
NAMED_PLATE = re.compile(
    rf"(?:車 ?牌|車 ?號|牌照|[黃紅白綠]牌|plate)(?:號碼|號|no|是|為|[ :#.=(\"'\[]){{0,5}}"
    rf"(?P<plate>{PLATE})(?![0-9A-Za-z\-])",
    re.IGNORECASE,
)
BARE_PLATE = re.compile(
    r"(?<![A-Za-z0-9\-])(?!(?:BMW|MSI|RTX|GTX|ISO|EOS|DDR|USB|CPU|GPU|SSD|NBA|MLB|CPC|CNS|AMG|GLC|SUV)[\- ]?[0-9])"
    r"(?:[A-HJ-NP-Z]{3}[\-._ ]?[0-9]{4}|[a-hj-np-z]{3}-[0-9]{4}"
    r"|[A-HJ-NP-Z](?: [A-HJ-NP-Z]){2}[\-_. ]{1,3}[0-9](?: [0-9]){3}"
    r"|[0-9]{4}-[A-Z][A-Z0-9]|[A-Z0-9][A-Z]-[0-9]{4}|[A-Z][0-9]-[0-9]{4}|[A-HJ-NP-Z]{3}-[0-9]{3}|[0-9]{3}-[A-HJ-NP-Z]{3})"
    r"(?![0-9A-Za-z\-])"
)
# A plate without its word: somebody does something with a vehicle around it, or a vehicle stands right beside it.
# Vehicles alone are no sign: their magazines, helmets and recorders have part numbers of the same shape.
TRAFFIC = re.compile(
    r"逼車|違停|違規|紅燈|肇[事逃]|[追擦]撞|超車|拒載|併排|亂[停切開]|急煞|闖|逃逸|[拍錄]到|移車|繞路|[佔擋].{0,3}[車門庫格位]"
    r"|撞[到上]?我|掉東西|讓行|這[台輛]|那[台輛]|違法"
    r"|車[ ]?[牌號]|停車|車[位格]|按.{0,2}喇叭|停在|檢舉|移.{0,6}車|方向燈"
    r"|[壓龜賣租]車|龜速|蛇行|改管|三寶|酒駕|超速|危險駕駛"
    r"|被[刮撞偷拖]|目擊|租賃車|駕駛|載客"
)
VEHICLE = (
    r"(?:[汽機轎貨客公前後跑小吊]車|車[輛子主]|計程車|遊覽車|聯結車|休旅|小黃|重機|司機|騎士|駕駛|檢舉"
    r"|勁戰|altis|camry|yaris|gogoro|賓士|bmw|特斯拉|豐田|本田|裕隆|光陽|三陽|山葉)"
)
VEHICLE_BEFORE = re.compile(rf"{VEHICLE}[ :]{{0,2}}$", re.IGNORECASE)
VEHICLE_AFTER = re.compile(rf"^ ?(?:的|[白黑紅藍灰銀]色?)?{VEHICLE}", re.IGNORECASE)
MODEL_AFTER = re.compile(r"^ ?(?:年[式份]|型|款|版|系列|平台|底盤|引擎|規格|評測|開箱|元|片|吋|mah)", re.IGNORECASE)
PART_NUMBER = re.compile(r"(?:型號|番號|料號|貨號|編號|序號|單號|發票|代碼|顯卡|螢幕|零件|耗材)[^\n]{0,4}$")


def plates(text: str) -> Iterator[Span]:
    digits = digits_of(text)
    for found in NAMED_PLATE.finditer(digits):
        yield found.span("plate")
    for found in BARE_PLATE.finditer(digits):
        before, after = _before(text, found.start(), 16), text[found.end() : found.end() + 16]
        driven = VEHICLE_BEFORE.search(before) or VEHICLE_AFTER.match(after) or TRAFFIC.search(f"{before}\n{after}")
        if driven and not MODEL_AFTER.match(after) and not PART_NUMBER.search(before):
            yield found.span()


STUDENT = re.compile(
    r"(?:學 ?號|學籍編號|學生證|student ?(?:id|no|number)|員工編號|員編|工號|系級[^\n0-9]{0,8})"
    r"(?:號碼|號|編號|姓名|no|是|為|[ :#.=(/\"'\[]){0,6}"
    r"(?P<number>[A-Z]{0,2}[ \-]?[0-9](?:[ \-._]?[0-9]){5,9}[A-Z]?|[A-Z]?[0-9]{2,3}[A-Z][0-9]{4,6})(?![0-9A-Za-z])",
    re.IGNORECASE,
)
# Letter of the degree, year of entry, department, number (or the department first); or the year (of a private school
# after a 4) and nine digits in all: only where a school is spoken of.
BARE_STUDENT = re.compile(
    r"(?<![A-Za-z0-9.\-])(?:[A-Za-z](?:[01][0-9]{7,8}|[0-9]{2}[01][0-9]{5})|[14](?:0[3-9]|1[0-5])[0-9]{6})(?![A-Za-z0-9\-])"
)
# Fewer digits, or spelt apart: a school right before it, or its word right behind.
SHORT_STUDENT = re.compile(r"(?<![A-Za-z0-9.\-])(?:(?:[A-Za-z] ?)?[0-9](?: ?[0-9]){6,8}[A-Za-z]?)(?![A-Za-z0-9\-])")
SCHOOL = re.compile(
    r"[台臺清交成政中師輔興][大]|[台臺北雲高虎][科]|大學|學院|[^\n]系(?![列統])|系級|同學|同組|組[隊員]|學長|學姐|學妹|學弟|學生|助教|修課|加簽|姓名"
    r"|學號|[碩博大]班|新生|重補修|[換選退]課|專題|淡江|東吳|逢甲|元智|中原|東海|世新|銘傳|實踐|靜宜|文化|義守"
)
SCHOOL_BEFORE = re.compile(
    r"(?:[台臺清交成政中師輔興]大|[台臺北雲高虎]科|大學|淡江|東吳|逢甲|元智|中原|東海|世新|銘傳|實踐|靜宜|義守"
    r"|(?:成績|分數|名單)(?:公告|公布)?)[ :]{0,2}$"
)
STUDENT_AFTER = re.compile(r"^ ?(?:[是,(]|我)*的?學號")
ENTRY = re.compile(
    r"(?!1[01][0-9](?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])$)"  # 1131015 is a day
    r"[A-Za-z]?(?:0[4-9]|1[0-4]|[14][01])[0-9]*[A-Za-z]?"
)


def student_ids(text: str) -> Iterator[Span]:
    for found in STUDENT.finditer(digits_of(text)):
        yield found.span("number")
    digits = digits_of(text)
    for found in SHORT_STUDENT.finditer(digits):
        before, after = _before(text, found.start()), text[found.end() : found.end() + 10]
        in_school = SCHOOL_BEFORE.search(before) and " " not in found.group() and ENTRY.fullmatch(found.group())
        if (in_school or STUDENT_AFTER.match(after)) and not QUANTITY.match(after) and not DAY.fullmatch(found.group()):
            yield found.span()
    for found in BARE_STUDENT.finditer(digits):
        around = _before(text, found.start()) + "\n" + text[found.end() : found.end() + 11]
        if SCHOOL.search(around) and not PART_NUMBER.search(_before(text, found.start())):
            yield found.span()


BANK = re.compile(
    r"(?<![0-9A-Za-z_.\-])(?:\(?[0-9]{3}\)?[- ]{0,2})?[0-9]{3,17}(?:[- ][0-9]{1,14}){0,4}(?![0-9A-Za-z_\-])"
)
# A card: whole, in its groups or digit by digit, whatever parts them; its check digit decides.
CARD = re.compile(rf"(?<![0-9A-Za-z_.\-])[2-6](?:{GAP}[0-9]){{13,18}}(?![0-9A-Za-z_\-])")
ISSUED = re.compile(r"3[47][0-9]{13}|3[068][0-9]{12}|35[0-9]{14}|[45][0-9]{15}|2[2-7][0-9]{14}|6[0-9]{15}|62[0-9]{17}")
GROUPS = re.compile(r"[0-9]+|[0-9]{4,6}(?:X[0-9]{3,6}){1,3}(?:X[0-9]{1,3})?|[0-9](?:X[0-9])+")
# three digits of the bank, then the account
CODE_AND_ACCOUNT = re.compile(r"\(?[0-8][0-9]{2}\)?[- ]{1,2}[0-9]{10,16}|\([0-8][0-9]{2}\)[0-9]{10,16}")
BANK_WORD = re.compile(
    r"(?:帳號|帳戶|戶頭|匯|轉帳|轉到|轉錯|轉入|存入|存摺|捐款|贊助|訂金|尾款|銀行|郵局|局號|分行|信用卡|卡號|account|a/c|iban"
    r"|合作金庫|[合土台臺華彰一高]銀|台新|聯邦|星展|京城|渣打|花旗|國泰|中信|玉山|富邦|兆豐|永豐|元大|凱基|新光)[^\n]{0,18}$",
    re.IGNORECASE,
)
WALLET = re.compile(r"(?:街口|全支付|悠遊付|全盈|歐付寶|支付寶|橘子支)[^0-9\n]{0,8}(?P<number>[0-9]{8,12})(?![0-9])")
PAID_AFTER = re.compile(r"^ ?(?:匯款|轉帳|入帳)")
NOT_A_BANK = re.compile(
    r"(?:訂單|單號|編號|電話|手機|統編|發票|學號|序號|金額|日期|時間|共|總計|NT\$?|\$)[^0-9\n]{0,6}$", re.IGNORECASE
)
IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?(?![A-Za-z0-9])")


def bank_accounts(text: str) -> Iterator[Span]:
    for found in CARD.finditer(digits_of(text)):
        spelt = re.sub("[^0-9]+", "X", found.group())
        number = spelt.replace("X", "")
        issued = ISSUED.fullmatch(number) and GROUPS.fullmatch(spelt) and luhn.is_valid(number)
        if issued and not NOT_A_BANK.search(_before(text, found.start())):
            yield found.span()
    for found in BANK.finditer(text):
        start, end = found.span()
        digits = re.sub(r"\D", "", found.group())
        before = _before(text, start, 28)
        if not 10 <= len(digits) <= 19 or NOT_A_BANK.search(before[-14:]) or QUANTITY.match(text[end : end + 4]):
            continue
        named = BANK_WORD.search(before) or PAID_AFTER.match(text[end : end + 4])
        if named or CODE_AND_ACCOUNT.fullmatch(found.group()):
            yield start, end
    for found in IBAN.finditer(text):
        if iban.is_valid(found.group()):
            yield found.span()
    for found in WALLET.finditer(text):
        yield found.span("number")
