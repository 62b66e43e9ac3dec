"""Which rows nobody should train on, and why: flags, never deletions.

`BLOCKING` flags keep a row out of training; the others only inform. Polars measures, sql/quality.sql judges
each row, sql/repeated.sql a board's rows together.
"""

from __future__ import annotations

import polars as pl

from persona_dagster.corpus.tables import run_sql

BLOCKING = (
    "empty",
    "too_short",
    "symbols",
    "repetition",
    "template",
    "flood",
    "copypasta",
    "flattened",
    "unstable",
    "joined",
    "simplified",
    "foreign",
    "bot",
    "advert",
)

ALPHABET_OF = 400  # characters whose alphabet is counted
# What sql/quality.sql takes for too much or too little.
LIMITS = {
    "post_words": 5,  # letters and digits, Chinese characters among them
    "symbol_chars": 10,
    "letter_share": 0.3,  # less than three letters or digits in ten characters: drawings and emoji walls
    "repeated_words": 20,
    "repeats": 7,  # 42 characters drawn from an alphabet of six are a scream, not a sentence
    "alphabet_of": ALPHABET_OF,
    "form_words": 2,
    "advert_words": 3,  # who asks about pay names one or two of them
    "latin_words": 4,  # XDDDDD, QQ and a word of English are Taiwan's own
}
# What sql/repeated.sql takes for too often.
REPEATS = {
    "flood_rows": 5,  # the same sentence more often by one author
    "pasted_words": 30,
    "pasted_authors": 5,
    "pasted_rows": 10,
}
FOUND = (
    "empty",
    "too_short",
    "symbols",
    "repetition",
    "template",
    "flood",
    "copypasta",
    "foreign",
    "bot",
    "advert",
)  # in the order in which they stand
TOLD_APART = 5  # letters; below, everybody says the same

WORD = r"[\p{L}\p{N}]"
PLACEHOLDER = r"<[A-Z_]{2,10}>"  # whose letters are nobody's
SQUEEZED = r"[^\p{L}\p{N}]+"
# What answers a form (Re:) is somebody's own words: 1,846 replies to news.
TEMPLATE_TITLE = (
    r"^(?:Fw: ?)?[\[【](?:公告|新聞|水桶|協尋|情報|徵求|交易|賣|售|徵才|板務"
    r"|檢舉|申訴|置底|活動|廣編)[\]】]"
)
TEMPLATE_WORDS = (
    r"媒體來源|記者署名|完整新聞|備註請放|違者(?:新聞)?文章?刪除|填寫問卷|問卷連結|抽獎|物品名稱|聯絡方式|徵才|板規第"
)
# Labels at the heads of lines of a job form, and what only who sells says.
ADVERT_WORDS = (
    r"(?m)^[ 【\[]{0,2}(?:公司(?:名稱|地址|行號)|統一編號|職缺|徵求|徵才|應徵方式|工作(?:地點|時間|內容|待遇)"
    r"|薪資(?:待遇|範圍)?"
    r"|月休|休假制度|聯絡(?:人|方式|電話)|需求人數|應徵條件)[】\] ]{0,2}[:：]"
    r"|折扣碼|優惠碼|限時(?:優惠|特價)|團購(?:連結|價)|免運|加(?:我)?(?:賴|LINE|Line|line)|歡迎(?:私訊|洽詢|訂購|報名)|業配"
    r"|(?:私訊|立即|線上)(?:下單|訂購|報名)|現貨供應|買滿 ?[$＄]?[0-9]|出運費|早鳥(?:價|優惠)|(?m:^)品名[:：]"
    r"|進口商|消費者專線|免費課程|徵(?:人|才|伙伴|夥伴|團隊)中|無經驗(?:可|佳|\p{So})|不收(?:學費|任何費用)|提供培訓|多做多得|可副業|下單請|私訊(?:賴|LINE|Line|line)|不接急單|限超商取貨"
    r"|(?m:^)[ㅇ▫ ]{0,2}(?:價格|售價|尺寸|顏色|付款方式)[:：ㅣ]|誠徵|廠商邀約"
)
BOT = r"好像有人對這篇文章有新想法|本文章已被|此(?:留言|文章)已被(?:刪除|檢舉|移除)|這篇(?:文章|留言)已"


def blocked() -> pl.Expr:
    """True for rows that a flag keeps out of training."""
    return pl.col("flags").list.set_intersection(pl.lit(list(BLOCKING))).list.len() > 0


def usable() -> pl.Expr:
    """True for rows that may be trained on: no blocking flag, some text, not a copy of a kept row."""
    return ~blocked() & (pl.col("text").str.len_chars() > 0) & pl.col("dup_of").is_null()


def row_flags(frame: pl.DataFrame) -> pl.DataFrame:
    """`flags` of cleaned forum rows (`lang` set) extended by what each row shows by itself; with `words` and the hash
    `squeezed` of a text's letters for `repeated`."""
    text, kind, words = pl.col("text"), pl.col("kind"), pl.col("words")
    comment = kind.is_in(["comment", "reply"])
    form = pl.col("title").str.contains(TEMPLATE_TITLE) | ((kind == "title") & text.str.contains(TEMPLATE_TITLE))
    features = frame.with_row_index("row").select(
        "row",
        "lang",
        comment.alias("comment"),
        form.fill_null(value=False).alias("form"),
        text.str.len_chars().alias("chars"),
        text.str.replace_all(PLACEHOLDER, "").str.count_matches(WORD).alias("words"),
        text.str.count_matches(TEMPLATE_WORDS).alias("form_words"),
        text.str.count_matches("[A-Za-z]{2,}").alias("latin_words"),
        text.str.contains(BOT).alias("bot"),
        text.str.count_matches(ADVERT_WORDS).alias("advert_words"),
        text.str.replace_all(SQUEEZED, "").str.to_lowercase().alias("squeezed"),
    )
    alphabet = pl.col("squeezed").str.head(ALPHABET_OF).str.split("").list.n_unique().alias("alphabet")
    features = features.with_columns(alphabet, pl.when(words >= TOLD_APART).then(pl.col("squeezed").hash(1)))
    found = run_sql("quality", LIMITS, features=features.drop("squeezed"))["found"]
    return frame.with_columns(
        pl.col("flags").list.concat(found).list.unique(maintain_order=True),
        features["words"].cast(pl.UInt32),
        features["squeezed"],
    )


def repeated(frame: pl.DataFrame) -> pl.DataFrame:
    """`flags` of a board's rows, each with its `row_flags`, extended by what they show together."""
    told = frame.with_row_index("row").select("row", "author_key", "words", "squeezed").drop_nulls("squeezed")
    hits = run_sql("repeated", REPEATS, told=told)
    flags = [
        _in_order([*kept, *found])
        for kept, found in zip(frame["flags"].gather(hits["row"]).to_list(), hits["found"].to_list(), strict=True)
    ]
    more = pl.DataFrame({"row": hits["row"], "flags": pl.Series(flags, dtype=pl.List(pl.String))})
    return with_values(frame, more) if len(hits) else frame


def with_values(frame: pl.DataFrame, values: pl.DataFrame) -> pl.DataFrame:
    """`frame` with other values in some rows: `values` has their numbers as `row`. The other columns are not copied."""
    columns = frame.select(name for name in values.columns if name != "row").with_row_index("row")
    return frame.with_columns(*columns.update(values, on="row", include_nulls=True).drop("row").get_columns())


def _in_order(flags: list[str]) -> list[str]:
    """Those of other modules first, as they stand."""
    others = [flag for flag in flags if flag not in FOUND]
    return list(dict.fromkeys([*others, *sorted(set(flags) - set(others), key=FOUND.index)]))
