"""What a word sounds like: people write 張戶, ㄓㄤ號 or 護罩 so that nobody who searches for the word finds it."""

from __future__ import annotations

# Of the common characters of Big5 those of one sound, without the rarest: picked by pypinyin 0.55, whatever their tone,
# and with zh, ch, sh and -ng as z, c, s and -n, as they are mixed up in Taiwan; simplified forms were added by hand.
# Then the sound in Bopomofo, as far as it is written, and in Pinyin.
SOUNDS = {
    "護戶": ("互戶户乎囫沍呼弧忽狐虎胡唬惚扈斛瓠壺湖琥楛瑚葫滬糊蝴鵠鬍護护", "ㄏㄨ?", "hu"),
    "照": ("爪召兆早找灶皂招沼昭炤蚤造詔照罩肇趙遭噪澡燥糟藻躁鑿", "ㄓㄠ?", "zhao"),
    "帳": ("丈仗杖長帳帐張章掌脹葬彰漳漲獐臧障樟璋賬账瘴蟑贓臟髒", "ㄓㄤ?", "zhang"),
    "號": ("好昊浩耗郝毫皓號号豪嚎壕濠鎬", "ㄏㄠ?", "hao"),
    "微": ("未危圩位尾味委威為畏胃韋偽偉唯尉帷惟喂圍渭猥萎微葦違維慰緯蔚衛薇餵魏巍", "ㄨㄟ?", "wei"),
    "信": ("心刑行形杏辛邢姓幸性昕欣芯信型星倖新腥鋅興醒薪馨", "ㄒㄧㄣ?", "xin"),
    "身": ("什升生申伸沈身呻昇牲省神深盛森慎聖審聲繩", "ㄕㄣ?", "shen"),
    "分": ("分份吩汾奉忿氛芬封風俸峰粉紛烽馮楓蜂瘋鳳墳憤鋒奮諷糞縫豐", "ㄈㄣ?", "fen"),
    "證": ("正征怔枕爭拯政珍貞振症疹真針陣偵掙猙証診斟楨甄箏蒸增徵憎鄭震整鎮證贈", "ㄓㄥ?", "zheng"),
    "學": ("穴血削雪靴學薛学", "ㄒㄩㄝ?", "xue"),
    "車": ("冊扯車车坼側廁測策徹撤澈", "ㄔㄜ?", "che"),
    "牌": ("拍派俳徘排湃牌", "ㄆㄞ?", "pai"),
    "住": ("主朱竹住佇助足柱株珠祖祝租著註駐築", "ㄓㄨ?", "zhu"),
    "址": ("之支止只字旨自至吱址志制指治知芷紙脂置質", "ㄓ", "zhi"),
    "愛": ("艾哀哎唉埃挨捱愛爱矮隘皚曖癌礙藹", "ㄞ", "ai"),
    "賴": ("來徠萊睞賴瀨癩籟赖", "ㄌㄞ?", "lai"),
    "居": ("句巨局具居拒拘沮炬桔矩菊距聚劇踞鋸舉鞠颶懼", "ㄐㄩ?", "ju"),
}


def sounds_like(*words: str) -> str:
    """Pattern of whatever sounds like one of the words; a space, a point or a tone's sign may part its syllables."""
    return "|".join("[ .]?".join(map(_syllable, word)) for word in words)


def _syllable(character: str) -> str:
    written, bopomofo, latin = next(sound for characters, sound in SOUNDS.items() if character in characters)
    return f"(?:[{written}]|{bopomofo}[ˊˇˋ]?|{latin})"
