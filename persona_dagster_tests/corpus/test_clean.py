"""Posts as parsed in, posts as trained on out: each site's residue, in the shapes that the parsers hand over."""

from __future__ import annotations

import polars as pl
import pytest

from persona_dagster.corpus.clean import clean_posts
from persona_dagster.corpus.quality import usable
from persona_dagster.records import POST_SCHEMA
from persona_dagster.sites.ptt.quotes_and_line_wrapping import take_apart

ARTICLE = """作者  kitty99 (小貓)
看板  Boy-Girl
標題  Re: [求助] 他都不回訊息
時間  Mon Aug 17 02:49:57 2020

※ 引述《doggy (狗狗)》之銘言：
: 他三天沒回我了
: : 你先別急
我覺得你可以先冷靜一下，不要一直傳訊息給他，等他忙完自然會回你的，真的不要想太
多好嗎

照片 https://i.imgur.com/abc.jpg
--
我的簽名檔很長
Sent from JPTT on my iPhone

--
※ 發信站: 批踢踢實業坊(ptt.cc), 來自: 1.200.15.156 (臺灣)
※ 文章網址: https://www.ptt.cc/bbs/Boy-Girl/M.1597603799.A.123.html
※ 編輯: kitty99 (1.200.15.156 臺灣), 08/17/2020 02:53:00
推 user1: 推 08/17 02:53
"""


FLAT = "作者abc (x)看板B標題t時間Sat May 30 03:33:04 2020\n\n內容\n---split---\n推: 1\n作者: abc (x)\n"


def only(frame: pl.DataFrame) -> dict:
    assert len(frame) == 1
    return frame.row(0, named=True)


def test_a_ptt_article_becomes_its_author_s_words(frame_of, sources):
    cleaned = clean_posts(frame_of([ARTICLE], title="Re: [求助] 他都不回訊息"), "ptt", sources)
    row = only(cleaned.frame)
    assert row["text"] == (
        "我覺得你可以先冷靜一下，不要一直傳訊息給他，等他忙完自然會回你的，真的不要想太多好嗎\n\n照片"
    )
    assert row["quoted"] == "他三天沒回我了\n你先別急"
    assert row["title"] == "Re: [求助] 他都不回訊息"
    for secret in ("kitty99", "doggy", "user1", "1.200.15.156"):
        assert secret not in row["text_raw"]
    assert "※ 發信站" in row["text_raw"], "Version 1.0's diet keeps the residue"
    assert row["lang"] == "zh-Hant"
    assert cleaned.frame.schema == POST_SCHEMA


@pytest.mark.parametrize(
    ("source", "kind", "raw", "text"),
    [
        ("ptt", "comment", "推 someone: 我也這樣覺得 08/17 02:53", "我也這樣覺得"),
        ("ptt", "comment", "→ <user>: 真的 1.2.3.4 08/17 02:53", "真的"),
        ("ptt", "comment", "推 <user>: 讚 <ip> 08/17 02:53", "讚"),
        ("dcard", "comment", "B3 我懂 11月21日 22:33", "我懂"),
        ("threads", "reply", "我也是\n11月21日 22:33", "我也是"),
        ("ptt", "comment", "推 : 讚", "讚"),
        ("ptt", "comment", "推", "推"),
        ("ptt", "comment", ":不想蓋就別蓋", "不想蓋就別蓋"),
        ("ptt", "post_flat", FLAT, "內容"),
        ("ptt", "post", "看起來不錯-----SentfromJPTTonmyiPhone--", "看起來不錯"),
        ("ptt", "post", "第一段\n--\n第二段也是我寫的", "第一段\n第二段也是我寫的"),
        # Flattened: a signature stands between two marks, what the author answered to pushes after the last.
        ("ptt", "post", "大家怎麼看？--更正一下，是兩冠", "大家怎麼看？\n更正一下，是兩冠"),
        ("ptt", "post", "大家怎麼看？--不容青史盡成灰--", "大家怎麼看？"),
        ("ptt", "post", "大家怎麼看？--不容青史盡成灰--你說得對", "大家怎麼看？\n你說得對"),
        ("ptt", "post", "怎麼看-----SentfromJPTTonmyiPhone--你說得對", "怎麼看\n你說得對"),
        ("ptt", "post", "怎麼看？--Sent from my iPhone PiTT--", "怎麼看？"),
        ("ptt", "post", "有沒有卦？--11/1221:5311/1222:34", "有沒有卦？"),
        ("ptt", "post", "大家怎麼看----空的簽名檔下面", "大家怎麼看\n空的簽名檔下面"),
        ("ptt", "post", "真的假的？？————————————————--你好", "真的假的？？\n你好"),
        ("ptt", "post", "真的假的？？————————————————", "真的假的？？"),
        ("ptt", "post", "解說一下~~~-----", "解說一下~~~"),
        ("dcard", "post", "官網\nhttps://flower.jp/取扱い店舗/\n好看", "官網\n好看"),
        ("threads", "post", "做好了\nmy.canva.site/track…", "做好了"),
        ("dcard", "post", "主題曲想好了\nYoutube：\nhttps://youtu.be/a\n好聽", "主題曲想好了\n好聽"),
        ("dcard", "comment", "B12 你說得對", "你說得對"),
        ("dcard", "comment", "B1B2 都來～", "都來～"),
        ("dcard", "comment", "我要B12跟維他命", "我要B12跟維他命"),
        ("dcard", "comment", "B1的美食街", "B1的美食街"),
        ("dcard", "post", "看圖\nhttps://i.imgur.com/a.jpg\n就是這樣", "看圖\n就是這樣"),
        ("dcard", "title", "#問 #更 大家會分手嗎", "大家會分手嗎"),
        ("threads", "post", "今天好累\n1\n/\n2", "今天好累"),
        ("threads", "reply", "@some.body 我懂你 #心累 #上班", "我懂你"),
        ("threads", "post", "看這個\ninstagram.com/lazy…\n好笑", "看這個\n好笑"),
        ("threads", "post", "直播完成了！\nyoutube.com/live…\nyoutube.com\n油洗頭必看", "直播完成了！"),
        ("threads", "post", "哪一個？\n左邊\n41%\n右邊\n59%\n17票 · 票選活動已結束", "哪一個？\n左邊\n右邊"),
        ("ptt", "post", "吃完了\n圖文網誌：https://x.tw/a\n推薦", "吃完了\n推薦"),
        ("dcard", "post", "先上張照片：\nhttps://i.imgur.com/a.jpg\n好看嗎", "先上張照片：\n好看嗎"),
        ("threads", "post", "今天真的很累喔\n翻譯", "今天真的很累喔"),
        ("ptt", "post", "以下有雷\n.\n.\n.\n.\n他死了", "以下有雷\n\n他死了"),
        ("ptt", "post", "5.完整新聞連結 (或短網址)不可用YAHOO、LINE等轉載媒體:\n我的心得", "我的心得"),
        ("ptt", "post", "我的想法\n本網站已依台灣網站內容分級規定處理。此區域為限制級", "我的想法"),
        ("dcard", "comment", "🇹🇼🇹🇼🇹🇼🇹🇼 加油", "🇹🇼🇹🇼🇹🇼 加油"),
    ],
)  # fmt: skip
def test_residue_of_each_site(frame_of, sources, source, kind, raw, text):  # noqa: PLR0917
    assert only(clean_posts(frame_of([raw], source=source, kind=kind), source, sources).frame)["text"] == text


def test_an_article_with_more_answers_below_than_a_line_is_not_used(frame_of, sources):
    raw = f"大家怎麼看？--{'你說得對' * 50}"
    row = only(clean_posts(frame_of([raw], source="ptt", kind="post"), "ptt", sources).frame)
    assert row["text"] == "大家怎麼看？" and "flattened" in row["flags"]


def test_cleaning_cleaned_posts_changes_nothing(frame_of, sources, real_rows):
    for source in ("ptt", "dcard", "threads"):
        texts = [row["text"] for row in real_rows if row["source"] == source and row["kind"] in ("post", "post_flat")][
            ::40
        ]
        once = clean_posts(frame_of(texts, source=source), source, sources).frame
        twice = clean_posts(frame_of(once["text"].to_list(), source=source), source, sources).frame
        changed = once.with_columns(again=twice["text"]).filter(pl.col("text") != pl.col("again"))
        assert not len(changed), f"{source}: {changed['post_id'].to_list()}"


def test_simplified_chinese_is_converted_or_flagged(frame_of, sources):
    frame = frame_of(["这个软件的质量还行，网络也挺快，你觉得怎么样"], source="threads")
    row = only(clean_posts(frame, "threads", sources).frame)
    assert (row["text"], row["lang"]) == ("這個軟體的質量還行，網路也挺快，你覺得怎麼樣", "zh-Hans")
    flagged = clean_posts(frame, "threads", sources, simplified="flag").frame
    assert not flagged.filter(usable()).height


def test_denied_boards_leave_and_are_counted(frame_of, sources):
    frame = frame_of(["一個很普通的句子", "另一個很普通的句子"]).with_columns(board=pl.Series(["Suicide", "boy-girl"]))
    cleaned = clean_posts(frame, "ptt", sources)
    assert cleaned.funnel.removed == {"denied_board": 1}
    assert cleaned.frame["board"].to_list() == ["Boy-Girl"], "the spelling of sources.yaml"


def test_nothing_else_is_dropped_and_order_is_kept(frame_of, sources):
    texts = ["", "https://x.tw", "好", "！！！！！！！！！！！！", "正常的一句話喔", "嗚" * 60]
    cleaned = clean_posts(frame_of(texts), "ptt", sources)
    assert cleaned.frame["post_id"].to_list() == [f"p{n}" for n in range(len(texts))]
    flags = cleaned.frame["flags"].to_list()
    assert [bool(found) for found in flags] == [True, True, True, True, False, True]
    assert cleaned.frame.filter(usable())["text"].to_list() == ["正常的一句話喔"]
    assert cleaned.funnel.usable == 1


def test_floods_and_copypasta_are_flagged(frame_of, sources):
    flood = clean_posts(frame_of(["今天也要加油喔大家"] * 7, kind="comment", author_key="a"), "ptt", sources).frame
    assert all("flood" in flags for flags in flood["flags"])
    paste = clean_posts(
        frame_of(["這是一段被到處轉貼的文字，大家都一直複製貼上它，希望可以讓更多人看到喔" * 1] * 12), "ptt", sources
    ).frame
    assert all("copypasta" in flags for flags in paste["flags"])


def test_what_is_not_chinese_is_foreign_and_a_word_of_english_is_not(frame_of, sources):
    foreign = [
        "これは日本語の文章です",
        "이건 한국어 문장이에요",
        "This is a whole sentence in English",
        "Это по русски",
    ]
    taiwanese = ["XD", "QQ 真的", "LOL ok", "XDDDDDDDDDDDDDDDDDDDDDDDDD", "我也覺得這個 deadline 很趕", "好の"]
    cleaned = clean_posts(frame_of([*foreign, *taiwanese], kind="comment"), "ptt", sources)
    assert ["foreign" in flags for flags in cleaned.frame["flags"]] == [True] * 4 + [False] * 6
    assert cleaned.funnel.flags["foreign"] == 4


def test_boards_that_nobody_listed_are_reported(frame_of, sources):
    frame = frame_of(["一句話就好", "兩句話也好"]).with_columns(board=pl.Series(["ＢＯＹ-girl", "C_Chat"]))
    funnel = clean_posts(frame, "ptt", sources).funnel
    assert funnel.unknown_labels == {"C_Chat": 1}
    assert "| C_Chat | 1 |" in funnel.markdown()


def test_a_sentence_cut_by_the_push_line_is_one_comment(frame_of, sources):
    pushes = [
        ("a", "推 <user>: 剛書中寫過，目前維持了快一百年左右的兩個中國 08/17 02:53", None),
        ("a", "→ <user>: 的困境，始作俑者就是他們自己啊不用再講了吧喔 08/17 02:53", "joined"),
        ("a", "→ <user>: 真的。 08/17 02:53", "joined"),
        ("a", "→ <user>: 這句是另外一句 08/17 02:54", None),
        ("b", "推 <user>: 別人講的話不會接上去 08/17 02:54", None),
        ("b", "推 <user>: 短的也不會 08/17 02:54", None),
    ]
    frame = frame_of([text for _, text, _ in pushes], kind="comment", parent_id="M.1")
    frame = frame.with_columns(author_key=pl.Series([author for author, _, _ in pushes]))
    cleaned = clean_posts(frame, "ptt", sources).frame
    assert [flags[0] if flags else None for flags in cleaned["flags"].to_list()] == [flag for _, _, flag in pushes]
    assert cleaned["text"][0] == (
        "剛書中寫過，目前維持了快一百年左右的兩個中國的困境，始作俑者就是他們自己啊不用再講了吧喔真的。"
    )
    again = clean_posts(cleaned.with_columns(pl.col("text").alias("text_raw")), "ptt", sources).frame
    assert again["text"].equals(cleaned["text"])


def test_signatures_with_two_marks_and_quotes_below():
    body = "我先說結論\n結論是分手\n\n※ 引述《x (y)》之銘言：\n: 要不要分手"
    article = take_apart(f"{body}\n--\n簽名\n\n--\n※ 發信站: 批踢踢實業坊(ptt.cc)\n推 a: b")
    assert article.own.strip() == "我先說結論\n結論是分手"
    assert article.quoted == "要不要分手"


def test_what_a_quote_mark_pushed_over_the_edge_is_quoted():
    quote = ": 我認為現在各家應該沒有實際的營收，而連訊營收已經歷史新高了。如果後面真的是"
    article = take_apart(f"我的話\n{quote}\n開\n: 始出貨了話\n開心\n--")
    assert (article.own, article.quoted) == ("我的話\n開心", quote[2:] + "開始出貨了話")


def test_an_article_without_line_ends_ends_where_its_mark_stands():
    answers = "他們說得也對不過我還是這樣想的" * 12
    assert take_apart(f"為什麼會這樣呢？--{answers}").own == "為什麼會這樣呢？"
    assert take_apart("身為粉絲實在是氣氣氣----對呀什麼心態--").own == "身為粉絲實在是氣氣氣"
    assert take_apart("第一段----第二段，有沒有八卦？").own == "第一段----第二段，有沒有八卦？"
    assert take_apart(f"這件事我覺得還好--{answers}").flattened
    assert not take_apart("這件事我覺得--- 還好").flattened


def test_lines_of_words_wrap_where_the_next_word_had_no_room():
    line = "One key highlight of this release is the continued movement of the new"
    assert take_apart(f"{line}\nprogramming features").own == f"{line} programming features"
    assert take_apart(f"{line}\nway").own == f"{line}\nway"
    link = "https://imgcdn.cna.com.tw/www/WebPhotos/1024/20241107/800x600_wmky_576659479"
    assert take_apart(f"{link}\n9_0.jpg\n\n好").own == f"{link}9_0.jpg\n\n好"


def test_replies_to_news_are_words_of_their_own_and_placeholders_are_no_words(frame_of, sources):
    reply = clean_posts(frame_of(["這個政策根本就是亂來啊"], title="Re: [新聞] 政策"), "ptt", sources).frame
    assert reply["flags"].to_list() == [[]]
    form = clean_posts(frame_of(["記者從台北報導這件事情"], title="[新聞] 政策"), "ptt", sources).frame
    assert form["flags"].to_list() == [["template"]]
    address = clean_posts(frame_of(["140.112.30.21"], kind="comment"), "ptt", sources).frame
    assert (address["text"][0], address["flags"][0].to_list()) == ("<IP>", ["too_short"])


def test_wrapped_lines_join_and_authored_lines_do_not():
    full = "這一行剛好寫滿了三十九個全形字所以編輯器把它從中間硬生生地切斷成為兩行文字哦對啊可是我還是想把它寫完"
    assert take_apart(f"{full[:39]}\n{full[39:]}\n短行\n另一行\n--").own == f"{full}\n短行\n另一行"
    assert "\n" in take_apart(f"{full[:38]}】\n{full[39:]}").own
    bracket = full[:38] + "」"
    assert "\n" in take_apart(f"{bracket}\n「{full[39:]}").own
    assert take_apart(f"{bracket}\n{full[39:]}").own == bracket + full[39:], "a bracket alone ends no sentence"
    ended = full[:37] + "。」"
    assert take_apart(f"{ended}\n{full[39:]}").own == f"{ended}\n{full[39:]}"
    japanese = "恋学" + full[2:39]
    assert take_apart(f"{japanese}\n{full[39:]}").own == japanese + full[39:], "two columns each, though not in Big5"
    listed = take_apart(f"{full[:39]}\n1. 這是清單\n--").own
    assert listed.split("\n")[1] == "1. 這是清單"
