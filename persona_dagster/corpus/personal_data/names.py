"""Names of people where the text itself says that a name follows. A name that just stands there needs a model (or a
reader): no list tells 高雄 from a Mr Gao.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

Span = tuple[int, int]

# The commonest surnames of Taiwan without those that begin everyday words (高, 方, 白, 江, 金, 馬, 連).
SURNAME = (
    "[陳林黃張李王吳劉蔡楊許鄭謝洪郭邱曾廖賴徐周葉蘇莊呂羅鍾彭詹簡侯沈趙盧梁顏柯翁魏孫戴范宋鄧杜傅薛蕭潘董曹袁蔣湯鄒]"
)
HAN = "[\u4e00-\u9fff]"
END = rf"(?!{HAN})"
ANNOUNCED = re.compile(
    r"(?:我叫|我的?名字(?:是|叫做?)|叫做|本名|真名|全名|姓名|戶名"
    r"|收件人|寄件人|聯絡人|收款人|(?<![A-Za-z<])(?:fb|facebook)(?= ?:)|臉書(?= ?:))"
    rf"(?:是|叫做?|為|[ :=「\"(]){{0,3}}(?P<name>{SURNAME}{HAN}{{2}}{END})",
    re.IGNORECASE,
)
WORD = re.compile(r"王八|張貼|周邊|許多|曾經|簡單|謝謝|保密|林口|王道|葉子|楊桃|羅東|蘇打|湯圓")


def names(text: str) -> Iterator[Span]:
    for found in ANNOUNCED.finditer(text):
        if not WORD.match(found["name"]):
            yield found.span("name")
