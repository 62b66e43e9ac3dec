"""Numbers of documents: identity cards, passports, plates, student ids.

Their forms are documented, and short enough to be a part number: a word beside them decides. Where that word stands,
the number is read as people read it, whatever signs part its characters and with O for 0. All texts are normalised.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from persona_dagster.corpus.personal_data.homophones import sounds_like
from persona_dagster.corpus.personal_data.normalise import GAP, digits_of
from persona_dagster.corpus.personal_data.phone_and_bank_numbers import QUANTITY, Span, preceding
from persona_dagster.corpus.personal_data.users import WRITER

NATIONAL_ID = re.compile(
    r"(?<![A-Za-z0-9_\-])(?:[A-Za-z][ \-._]?[1289](?:[ \-._]?[0-9]){8}|[A-Za-z][A-Da-d][0-9]{8})(?![A-Za-z0-9_]|-[0-9])"
)
PARTED_ID = re.compile(rf"(?<![A-Za-z0-9])[A-Za-z]{GAP}[1289A-Da-d](?:{GAP}[0-9]){{8}}(?![A-Za-z0-9])")
ID_NAME = rf"(?:{sounds_like('身分證')}|身證|居留證|(?<!准)[證証]號|字號)"
ID_TAIL = re.compile(rf"{ID_NAME}[^0-9\n]{{0,14}}(?P<number>[1289][0-9]{{8}})(?![0-9])")  # its letter apart
ID_WORD = re.compile(rf"{ID_NAME}[^A-Za-z0-9\n]{{0,10}}$")
ID_AROUND = re.compile(ID_NAME)
MADE_UP = re.compile(r"亂[打寫填]|[範舉]例|例題|例子|例如|掰|假的|虛構|不合法|ISBN")
LETTER = {letter: value for value, letter in enumerate("ABCDEFGHJKLMNPQRSTUVXYWZIO", start=10)}


def valid_national_id(code: str) -> bool:
    """National (1, 2), new residence (8, 9) and old residence (A-D) ids: weighted sum divisible by 10."""
    code = code.upper()
    first = LETTER[code[0]]
    second = LETTER[code[1]] % 10 if code[1].isalpha() else int(code[1])
    digits = [first // 10, first % 10, second, *map(int, code[2:])]
    return sum(d * w for d, w in zip(digits, (1, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1), strict=True)) % 10 == 0


def national_ids(text: str) -> Iterator[Span]:
    for found in _numbers(NATIONAL_ID, text):
        code, before = re.sub("[ ._-]", "", found.group()), preceding(text, found.start(), 20)
        around = f"{before}\n{text[found.end() : found.end() + 14]}"
        # One miswritten is one as well, unless it is said to be nobody's.
        nobodys = code != found.group() or GOODS_NUMBER.search(before[-8:]) or MADE_UP.search(around)
        other = PART_NUMBER.search(before) or (nobodys and not valid_national_id(code))
        if ID_WORD.search(before) or not other:
            yield found.span()
    for found in _numbers(PARTED_ID, text):
        code = re.sub("[^A-Za-z0-9]", "", found.group())
        if valid_national_id(code) or ID_AROUND.search(
            text[max(0, found.start() - 20) : found.start()] + "\n" + text[found.end() :][:20]
        ):
            yield found.span()
    for found in ID_TAIL.finditer(text):
        yield found.span("number")


DIGIT = "[0-9OoIl]"
EDGE, END = r"(?:(?<![0-9A-Za-z])|(?<=[a-z])(?=[0-9]))(?!(?:no|num|id|is|ppt?)(?![a-z]))", r"(?![0-9A-Za-z])"


def run(least: int, most: int) -> str:
    """Pattern of so many digits, parted or not."""
    return rf"{DIGIT}(?:{GAP}{DIGIT}){{{least - 1},{most - 1}}}"


def form(*documented: str) -> str:
    """Pattern of documented forms: A a letter, 9 a digit, parted or not."""
    letters = {"A": "[A-Z]", "9": DIGIT}
    return "|".join(GAP.join(letters[letter] for letter in one) for one in documented)


def _numbers(pattern: re.Pattern[str], text: str, name: re.Pattern[str] | None = None) -> Iterator[re.Match[str]]:
    """In the text with Han digits as digits, then as it stands: 一直 behind a number is no digit of it. Only where the
    `name` stands, if there is one."""
    if name and not name.search(text):
        return
    for read in dict.fromkeys((digits_of(text), text)):
        yield from pattern.finditer(read)


DAY = re.compile(r"(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])")
OTHER_NUMBER = re.compile(
    r"(?:字第|專利|課號|流水號|代碼|條碼|批號|訂單|單號|零件|耗材|發票|統編|股本|金額|(?<![A-Za-z])NT\$?(?![A-Za-z])|\$|ISBN|電話|手機|市話|傳真|phone"
    r"|tel)[^0-9\n]{0,6}$",
    re.IGNORECASE,
)


def _is_another(text: str, found: re.Match[str]) -> bool:
    """A day, a quantity, or what the word right before says."""
    digits, behind = re.sub("[^0-9]", "", found.group()), text[found.end() : found.end() + 4]
    return bool(DAY.fullmatch(digits) or QUANTITY.match(behind) or OTHER_NUMBER.search(preceding(text, found.start())))


# None of these names is a placeholder's (<PASSPORT>).
# By digits (here, China, USA, Britain), by a letter or two and digits (most others), by a last letter (Singapore,
# Philippines); Korea's new ones, France's, and Germany's of capitals without vowels.
PASSPORT = re.compile(
    rf"{EDGE}(?:{run(8, 10)}X?|(?:[A-Z]{GAP}){{1,2}}{run(6, 9)}(?:{GAP}[A-Z])?|{form('A999A9999', '99AA99999')}"
    rf"|(?-i:(?=(?:[A-Z]*[0-9]){{3}})[CFGHJKLMNPRTVWXYZ][0-9CFGHJKLMNPRTVWXYZ]{{8}})){END}",
    re.IGNORECASE,
)
PASSPORT_NAME = (
    rf"(?<!<)(?:{sounds_like('護照')}|[港日美韓英星馬泰越菲]護|旅券|小本本"
    r"|[台臺]胞證|入[台臺]證|通行證|旅行證|travel document|document n"
    r"|p[a4@][s5$]{2}[ -]?p[o0]r?t|(?<![A-Za-z])(?:pp|ppt|psp)(?= ?(?:no|num|#|:|號))"
    r"|(?<![A-Za-z])pp(?= ?[0-9]{9})|パスポ-?ト)"
)
# Of a number that is parted nothing but a word or two of filling may stand between.
PASSPORT_BEFORE = re.compile(rf"{PASSPORT_NAME}[^\n]{{0,18}}$", re.IGNORECASE)
PASSPORT_SAID = re.compile(PASSPORT_NAME, re.IGNORECASE)
FILLING = r"(?:[^0-9A-Za-z\n]|no|number|num|id|is){0,12}$"
PASSPORT_RIGHT_BEFORE = re.compile(rf"{PASSPORT_NAME}{FILLING}", re.IGNORECASE)
PASSPORT_AFTER = re.compile(rf"^[ ,(\-]{{0,3}}[\u4e00-\u9fff]{{0,8}}?{PASSPORT_NAME}", re.IGNORECASE)
# Passports of here, or of a letter or two, where a journey is spoken of.
ORDINARY = re.compile(rf"(?<![0-9A-Za-z])(?:3[0-9]{{2}}(?:[ -]?[0-9]{{3}}){{2}}|[A-Z]{{1,2}}[0-9]{{7,8}}[A-Z]?){END}")
JOURNEY = re.compile(
    r"簽證|[美日韓英澳泰越根地]簽|[入出]境|出國|機票|領隊|團員|登機|海關|通關|移民署|外[交館]|領務|註銷|航空|航班|班機|機場|旅[行客遊館]|乘客|飯店|民宿"
    r"|訂[房票位]|入住|[實本]名(?:制|認證|登記)?|打工度假|旅平險|免稅|klook|kkday|agoda|booking|airbnb|trip\.com"
    rf"|check-?in|(?<![a-z])(?:esta|vjw|eta|twn|jr|visa|kktix)(?![a-z])|{PASSPORT_NAME}",
    re.IGNORECASE,
)
BOOKED = re.compile(
    r"(?:[編代票]號|[代確][碼認]碼?|booking(?: ?(?:no|number|id|ref)[a-z.]*)?)[^0-9A-Za-z\n]{0,4}$", re.IGNORECASE
)
# The two lines at the foot of a passport's page (ICAO 9303).
MACHINE_READABLE = re.compile(
    r"P[A-Z<][A-Z]{3}[A-Z]+<[A-Z<]{10,40}|[A-Z0-9<]{9}[0-9][A-Z]{3}[0-9]{7}[MFX<][0-9]{7}[A-Z0-9<]{14,16}"
)


def passports(text: str) -> Iterator[Span]:
    if "<" in text:
        yield from (found.span() for found in MACHINE_READABLE.finditer(text))
    for found in _numbers(PASSPORT, text, PASSPORT_SAID):
        whole = found.group().isalnum() and found.group().isascii()
        ahead, behind = preceding(text, found.start(), 30), text[found.end() : found.end() + 14]
        named = (PASSPORT_BEFORE if whole else PASSPORT_RIGHT_BEFORE).search(ahead) or PASSPORT_AFTER.match(behind)
        if named and not _is_another(text, found):
            yield found.span()
    for found in ORDINARY.finditer(text):
        around = preceding(text, found.start(), 30) + "\n" + text[found.end() : found.end() + 20]
        spoken = JOURNEY if found.group().isalnum() else PASSPORT_SAID  # 300 500 800 are prices
        if (
            spoken.search(around)
            and not BOOKED.search(preceding(text, found.start(), 20))
            and not _is_another(text, found)
        ):
            yield found.span()


# Cars, motorcycles and electric ones since 2012; before (also 9A, A9 for AA); trucks, buses and taxis; micro electric
# bicycles; trailers.
PLATE = re.compile(
    rf"{EDGE}(?:{form('AAA9999', 'AAA999', '999AAA', 'AA9999', '9999AA', 'A99999', '9A9999', '9999A9', '99999A')}"
    rf"|{form('AA99999', 'AA999', '999AA', 'A9999', '9A999', '999A9', '9999A')}"
    rf"|[軍試臨使領外]車?{GAP}(?:[A-Z]{GAP})?{run(4, 5)}){END}",
    re.IGNORECASE,
)
PLATE_NAME = (
    rf"(?<!<)(?:{sounds_like('車牌')}|[車车][ ]?[號号]|摩[ ]?[牌號]|牌[照號]|[黃紅白綠軍試臨時交新舊原]牌|掛牌|plate)"
)
PLATE_BEFORE = re.compile(rf"{PLATE_NAME}{FILLING}", re.IGNORECASE)
PLATE_SAID = re.compile(PLATE_NAME, re.IGNORECASE)
PLATE_AFTER = re.compile(rf"^[ ]?(?:[是這那,(為]|我)*的?{PLATE_NAME}", re.IGNORECASE)
NO_PLATE = re.compile(  # makes, standards, parts, times and leagues
    r"(?:XXX|BMW|MSI|RTX|GTX|ISO|RSA|AES|SHA|EOS|DDR|USB|CPU|GPU|SSD|NBA|MLB|CPC|CNS|AMG|GLC|SUV|CRV|GTR|MIL"
    r"|RFC|PEP|SCP|UTC|GMT|SKU"
    r"|ERC|JRA|DSC|HDD|LED|LCD|NAS|CVE|NCC|ETF|DLC|NTD|TWD|USD|CNY|RMB|JPY|HKD|BUG|REQ|ASTM|DNA|RNA|MAC|PCB"
    r"|GPT)[\- ]?[0-9]",
    re.IGNORECASE,
)
CAPITALS = "[A-HJ-NP-Z]"
BARE_PLATE = re.compile(
    rf"(?<![A-Za-z0-9\-])"
    rf"(?:{CAPITALS}(?:{GAP}{CAPITALS}){{2}}(?! (?:19|20)[0-9]{{2}}(?![0-9])){GAP}[0-9](?:{GAP}[0-9]){{3}}"
    r"|[a-hj-np-z]{3}[\- ]?(?! (?:19|20)[0-9]{2}(?![0-9]))[0-9]{4}|(?!(?:19|20))[0-9]{4} (?!NT|TW|CC|KM|HP|[AP]M"
    r"|[MG]B|US|UP|OK)[A-Z]{2}"
    r"|[0-9]{4}[\-.](?!TW|JP|US|HK|NT)(?:[A-Z][A-Z0-9]|[0-9][A-Z])|[A-Z0-9][A-Z]-[0-9]{4}|[A-Z][0-9]-[0-9]{4}"
    rf"|{CAPITALS}[A-Z0-9]{{2}}-[0-9]{{3}}|[0-9]{{3}}-{CAPITALS}{{3}})(?![0-9A-Za-z\-])"
    r"|(?<![\u4e00-\u9fff])[軍試臨使領外]-?(?:[A-Z]-?)?[0-9]{4,5}(?![0-9A-Za-z])"
)
# What next to nothing else is written like; its letters are never I or O.
SURE_PLATE = re.compile(
    rf"(?:{CAPITALS}{{3}}|[a-hj-np-z]{{3}})-[0-9]{{4}}|[0-9]{{3}}-{CAPITALS}{{3}}|{CAPITALS}[0-9]{CAPITALS}-[0-9]{{3}}"
)
# A make's model and its engine (KTM-1290, CB-350), or the year.
ENGINE = re.compile(
    r"(?:[A-Z]{2}|KTM|CBR|CRF|GSX|YZF|VFR|ZZR|FJR|XSR|XJR|ZRX|NSR|BMW|SMC)-(?:[1-9][05]0|1[25]5|158|[3678]90|1[0-9][0579]0|1290|[2-9]000|202[0-9])",
    re.IGNORECASE,
)
SHORT_PLATE = re.compile(  # of trucks, buses, taxis, or parted by a space: only with a vehicle right beside it
    r"(?<![A-Za-z0-9\-])(?:(?=[0-9]?[A-Z])[A-Z0-9]{2}-[0-9]{3}|[0-9]{3}-(?=[0-9]?[A-Z])[A-Z0-9]{2}"
    r"|(?!(?:19|20))[0-9]{4} [A-Z][A-Z0-9])(?![0-9A-Za-z\-])"
)
# A plate without its word: somebody does something with a vehicle around it, or a vehicle stands right beside it.
# Vehicles alone are no sign: their magazines, helmets and recorders have part numbers of the same shape.
TRAFFIC = re.compile(
    r"勁戰|失竊|騎樓|逆向|擋[在住]|倒車|並排|叭|跳表|格停|停的|前擋|車格|逼車|違停|違規|紅燈|肇[事逃]|[追擦]撞|[超追飆]車|拒載|併排|亂[停切開丟鑽竄]|急煞|闖|逃逸|[拍錄]到|移車|繞路|[佔擋].{0,3}[車門庫格位]"
    r"|撞[到上]?我|掉東西|讓行|這[台輛]|那[台輛]|違法|炸街|開單|比中指|囂張|[爆報]料|雙黃線|壓線|斑馬線|待轉|路上跑"
    r"|車[ ]?[牌號]|停車|車[位格縫]|按.{0,2}喇叭|停在|檢舉|移.{0,6}車|方向燈|逼[我人]"
    r"|[壓龜賣租]車|龜速|蛇行|改管|三寶|酒駕|超速|危險駕駛|臨停|禮讓|路權|行車(?![紀記])|車禍|下車|車道|車庫|人行道|路邊|外送員|騎[走車上在]|冒.?煙|選號|過戶|etag"
    r"|車主|車籍|拖吊|驗車|領牌|換牌|報廢|監理站|停[在到好滿]|停.{0,3}[下邊旁]"
    r"|加油|大燈|閃[我他她]|叫到|[舊新號]牌|國道|高速公路|交流道|通行費|[強任].險|車險|出險|理賠|uber|小黃|計程車|外送|熊貓|騎士|機車|[修保洗]養?[車廠]|罰單|行照"
    r"|停車[費單]|紅線|黃線|派出所|警察|報[警案]|防盜|車聚|里程|跑.{0,6}萬|[一二]手|司機|休旅|轎車|貨[車運]|卡車|遊覽|公車|轉彎|迴轉"
    r"|輪[胎差]|煞車|後照|車燈|遠光|菸蒂|牽[走車]|贓車|車[上內裡窗門尾]|路口|慢車|追尾|鄰居|電動車|上路|發動|熄火|鑰匙"
    r"|被[刮撞偷拖]|目擊|租賃車|駕駛|載客|[白黑銀灰紅藍綠黃橘棕]色 ?(?:的 ?)?[A-Z][a-z]{2}"
)
VEHICLE = (
    r"(?:[\u4e00-\u9fff]車(?<![火列單停搭坐纜]車)|車[輛子主是]|[一這那][台輛]|小黃|重機|速克達|休旅|司機|騎士|駕駛|檢舉|巴士"
    r"|勁戰|altis|camry|yaris|gogoro|many|focus|賓士|bmw|benz|特斯拉|tesla|豐田|本田|裕隆|光陽|三陽|山葉)"
)
VEHICLE_BEFORE = re.compile(rf"{VEHICLE}[ :(]{{0,3}}$", re.IGNORECASE)
VEHICLE_AFTER = re.compile(rf"^ ?(?:的|[白黑紅藍灰銀]色?)?{VEHICLE}", re.IGNORECASE)
GOODS = re.compile(r"筆電|螢幕|顯卡|耳機|鏡頭|解析度|折扣|優惠|便宜|降價|保固|開箱|[這那][組款]")
MODEL_AFTER = re.compile(r"^ ?(?:年[式份]|型|款|版|系列|平台|底盤|引擎|規格|評測|開箱|元|片|吋|mah)", re.IGNORECASE)
PART_NUMBER = re.compile(
    r"(?:型號|番號|料號|貨號|(?<!統一)編號|序號|(?<!停車)單號|訂單|產品|商品|批號|案號|條碼|發票|代碼|顯卡|螢幕|零件|耗材|字第|課號)[^\n]{0,4}$"
)
# Around what is shaped like a plate and is none: goods, courses, tickets, weapons, medicine, films.
CODED = re.compile(
    r"型|規格|款|課|代號|代碼|編[號碼]|標準|認證|協[議定]|票|優惠|折|航[班空]|班機|番|女優|作品|飛彈|(?<!勁)[戰砲炮軍]|艦|藥|試驗|臨床|注射|劑|晶片"
    r"|主機板|電源|滑鼠|鍵盤|相機|印表機|冰箱|冷氣|電視|洗衣機|錶|鋼彈|模型|積木|玩具|庫存|零件|料件|錯誤|訂單|商品|包裹|新品|飛利浦|國際牌|大金|日立|聲寶|羅技|華碩|微星|技嘉|佳能|尼康"
    r"|(?<![a-z])(?:model|part|phase|sku|code|error|ticket|issue|jira|bug|pr|branch|casio|shock|eos|canon|nikon"
    r"|sony|panasonic|philips|acer|asus|hp|epson|dell|lg|samsung|commit|spec|flight)(?![a-z])",
    re.IGNORECASE,
)
# A part or a tender right before, or behind: its number.
PART_BEFORE = re.compile(r"(?:[器套墊架殼芯胎膜]|電池|標案|喇叭|機油|燈泡|濾網)[ :]?$")
PART_AFTER = re.compile(r"^ ?(?:喇叭|音響|機油|濾網)")
END_OF_CLAUSE = re.compile(r"[,。!?;\n]")


def _clause(ahead: str, behind: str) -> str:
    """What of the two stands in one clause with the number between them."""
    return f"{END_OF_CLAUSE.split(ahead)[-1]} {END_OF_CLAUSE.split(behind)[0]}"


def plates(text: str) -> Iterator[Span]:
    for found in _numbers(PLATE, text, PLATE_SAID):
        if PLATE_BEFORE.search(preceding(text, found.start(), 18)) or PLATE_AFTER.match(
            text[found.end() : found.end() + 8]
        ):
            yield found.span()
    for pattern, beside in ((BARE_PLATE, False), (SHORT_PLATE, True)):
        for found in _numbers(pattern, text):
            ahead, behind = preceding(text, found.start(), 16), text[found.end() : found.end() + 16]
            around = f"{ahead}\n{behind}"
            driven = bool(VEHICLE_BEFORE.search(ahead) or VEHICLE_AFTER.match(behind))
            if not beside:
                sure = SURE_PLATE.fullmatch(found.group()) and not CODED.search(_clause(ahead, behind))
                driven = bool(driven or TRAFFIC.search(around) or sure)
            other = (
                MODEL_AFTER.match(behind)
                or PART_NUMBER.search(ahead)
                or GOODS.search(around)
                or PART_BEFORE.search(ahead)
                or PART_AFTER.match(behind)
                or ENGINE.fullmatch(found.group())
                or NO_PLATE.match(found.group())
                or WRITER.search(ahead)
            )
            if driven and not other:
                yield found.span()


# Letters of degree or college, the year of entry, department and number; letters within (B08A01234, 4A9G0001) or last.
STUDENT = re.compile(
    rf"{EDGE}(?:(?:[A-Z]{GAP}){{0,3}}{run(6, 10)}(?:{GAP}[A-Z])?"
    rf"|{form('A99A99999', 'A999A99999', '9A9A9999', '999A9999', '99999A99')}){END}",
    re.IGNORECASE,
)
STUDENT_NAME = (
    rf"(?<!<)(?:{sounds_like('學號')}|學籍[編號]|學生證|研究生證|學 ?(?:id|🆔)"
    r"|stu(?:dent)?[ ._]?(?:id|no|number)|員工編號|員編|工號|系級)"
)
STUDENT_BEFORE = re.compile(rf"{STUDENT_NAME}(?:姓名|{FILLING[:-1]}){{0,2}}$", re.IGNORECASE)
STUDENT_SAID = re.compile(STUDENT_NAME, re.IGNORECASE)
STUDENT_AFTER = re.compile(rf"^[ ,(]{{0,3}}[\u4e00-\u9fff]{{0,8}}?{STUDENT_NAME}", re.IGNORECASE)
# Without its word, where a school is spoken of: a letter and the year, or the year of a public school, or of a private
# one after a 4.
BARE_STUDENT = re.compile(
    r"(?<![A-Za-z0-9.\-])(?:[A-Za-z](?:0[0-9]|1[0-5]|[0-9]{2}[01])[0-9]{5,7}|[A-Za-z](?:0[0-9]|1[0-5])[A-Z][0-9]{5}"
    r"|[1345](?:0[3-9]|1[0-5])(?![0-9]*0000)[0-9]{6}|[4-8](?:0[3-9]|1[0-5])[0-9]{5}[A-Z]"
    r"|[4-8]1[01][0-9]{7})(?![A-Za-z0-9\-])"
)
# As the largest universities write it, a letter, the year, department and number, or the department before the year:
# without any word, unless one says that it is something else.
SURE_STUDENT = re.compile(
    r"(?<![A-Za-z0-9.\-_/=])[A-Za-z](?:(?:0[0-9]|1[0-5])(?:[0-9]{6}|[A-Za-z][0-9]{5}|[0-9]{3}[A-Za-z][0-9]{2})"
    r"|[0-9]{2}(?:0[0-9]|1[0-5])[0-9]{4})"
    r"(?![A-Za-z0-9\-_/=])"
)
GOODS_NUMBER = re.compile(
    r"號|碼|訂單|單號|[工貨]單|型|款|零件|料|包裹|物流|配送|貨|商品|專利|批|晶片|model|part|sku|order|tracking|v(?:er)?\.?$",
    re.I,
)
# Fewer digits: a school right before it.
SHORT_STUDENT = re.compile(r"(?<![A-Za-z0-9.\-])[A-Za-z]?[0-9]{7,10}[A-Za-z]?(?![A-Za-z0-9\-])")
SCHOOL = re.compile(
    r"[台臺清交成政中師輔興][大]|[台臺北雲高虎][科]|大學|學院|[^\n]系(?![列統])|系級|同學|同組|組[隊員長]|學長|學姐|學妹|學弟|學生|助教|修課|[加退]簽|姓名"
    r"|學號|[碩博大]班|新生|重補修|[加換選退][選課]|專題|淡江|東吳|逢甲|元智|中原|東海|世新|銘傳|實踐|靜宜|文化|義守"
    r"|中興|名單|長庚|北醫|高醫|暨南|東華|宜大|聯大|虎尾|屏科|嘉大|海大|陽明|ntu|nthu|ncku|nycu|nccu|ntnu|第.組|報告"
    r"|教授|老師|全班|成績|分數|[0-9]分|扣分|點名|期[中末]|被當|缺席|旁聽|[必選]修|通識|考卷|作業|教務|班上|畢業|學分|宿舍"
    r"|[資電化機土環材]工|資管|電[機子]|機械|土木|財金|企管|會計|國貿|法律|[中外]文|歷史|經濟|心理|護理|[碩博]士?[一二三生班]?|口試|論文"
    r"|研究[所室生]|實驗室|中央|高中|大[一二三四]|轉學|交換生|簽到|討論室|圖書館|選[上到]|學[年期籍務位系院]|出席|補考|小考|段考|考試|學餐",
    re.IGNORECASE,
)
SCHOOL_BEFORE = re.compile(
    r"(?:(?:[台臺清交成政中師輔興]大|[台臺北雲高虎]科|大學|中興|淡江|東吳|逢甲|元智|中原|東海|世新|銘傳|實踐|靜宜|義守)[\u4e00-\u9fff]{0,3}"
    r"|(?:成績|分數|名單)(?:公告|公布)?)[ :]{0,2}$"
)
ENTRY = re.compile(
    r"(?!1[01][0-9](?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])$)"  # 1131015 is a day
    r"[A-Za-z]?(?:0[4-9]|1[0-4]|[14][01])[0-9]*[A-Za-z]?"
)


def student_ids(text: str) -> Iterator[Span]:
    for found in _numbers(STUDENT, text, STUDENT_SAID):
        behind = text[found.end() : found.end() + 10]
        digits = re.sub("[^0-9]", "", found.group())
        named = (
            STUDENT_BEFORE.search(preceding(text, found.start(), 24))
            or STUDENT_AFTER.match(behind)
            # As long as most are, and said anywhere near.
            or (
                len(digits) in (8, 9)
                and ":" not in found.group()  # hours
                and not digits.startswith("09")
                and STUDENT_SAID.search(text[max(0, found.start() - 24) : found.end() + 24])
            )
        )
        if named and not _is_another(text, found):
            yield found.span()
    for found in _numbers(SHORT_STUDENT, text):
        in_school = SCHOOL_BEFORE.search(preceding(text, found.start())) and ENTRY.fullmatch(found.group())
        if in_school and not _is_another(text, found):
            yield found.span()
    for found in _numbers(BARE_STUDENT, text):
        around = preceding(text, found.start(), 18) + "\n" + text[found.end() : found.end() + 14]
        other = PART_NUMBER.search(preceding(text, found.start())) or _is_another(text, found)
        if SCHOOL.search(around) and not other:
            yield found.span()
    for found in SURE_STUDENT.finditer(text):
        ahead = preceding(text, found.start(), 12)
        goods = GOODS_NUMBER.search(ahead) or GOODS_NUMBER.search(text[found.end() : found.end() + 4])
        if not goods and not WRITER.search(ahead):
            yield found.span()
