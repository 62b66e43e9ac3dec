"""Which rows nobody should train on, and why: flags, never deletions.

`BLOCKING` flags keep a row out of training; the others only inform. Thresholds carry their reasons.
"""

from __future__ import annotations

import polars as pl

from persona_dagster.corpus.warehouse import run_sql
from persona_dagster.records import FORUMS

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
)

# The same sentence more than five times by one author; 30 letters or more by five authors, or in ten rows.
CROWD = {"flood": 5, "authors": 5, "rows": 10}

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
BOT = r"好像有人對這篇文章有新想法|本文章已被|此(?:留言|文章)已被(?:刪除|檢舉|移除)|這篇(?:文章|留言)已"


def blocked() -> pl.Expr:
    """True for rows that a flag keeps out of training."""
    return pl.col("flags").list.set_intersection(pl.lit(list(BLOCKING))).list.len() > 0


def usable() -> pl.Expr:
    """True for rows that may be trained on: no blocking flag, some text, not a copy of a kept row."""
    return ~blocked() & (pl.col("text").str.len_chars() > 0) & pl.col("dup_of").is_null()


def quality_flags(frame: pl.DataFrame) -> pl.DataFrame:
    """`flags` of a cleaned frame (`lang` set) extended by what its text, its author and its neighbours show."""
    text, kind = pl.col("text"), pl.col("kind")
    forum = pl.col("source").is_in(FORUMS)
    comment = kind.is_in(["comment", "reply"])
    shape = frame.select(
        "source",
        "kind",
        "author_key",
        "lang",
        text,
        pl.col("title").fill_null("").alias("title"),
        text.str.len_chars().alias("chars"),
        text.str.replace_all(PLACEHOLDER, "").str.count_matches(WORD).alias("words"),
        text.str.replace_all(SQUEEZED, "").str.to_lowercase().alias("squeezed"),
    )
    shape = shape.with_columns(
        # Distinct 3-grams over all, cheaply: distinct characters over characters for long texts.
        pl.col("squeezed").str.head(400).str.split("").list.n_unique().alias("alphabet"),
    ).with_row_index("row")
    crowds = run_sql(
        "crowds", CROWD, said=shape.filter(forum, pl.col("words") >= 5).select("row", "author_key", "squeezed", "words")
    )
    shape = shape.join(crowds.cast({"row": pl.UInt32}), on="row", how="left", maintain_order="left")
    rules = {
        "empty": pl.col("chars") == 0,
        # A post of four letters says nothing alone; a comment may (推, 笑死 are answers to something).
        "too_short": (pl.col("chars") > 0) & (pl.col("words") < pl.when(comment).then(1).otherwise(5)) & forum,
        # Less than three letters or digits in ten characters: drawings and emoji walls.
        "symbols": (pl.col("chars") >= 10) & (pl.col("words") < 0.3 * pl.col("chars")) & forum,
        # 40 characters drawn from an alphabet of six or fewer are a scream, not a sentence.
        "repetition": (pl.col("words") >= 20) & (pl.col("alphabet") * 7 <= pl.min_horizontal("words", 400)) & forum,
        "template": (
            pl.col("title").str.contains(TEMPLATE_TITLE)
            | ((kind == "title") & text.str.contains(TEMPLATE_TITLE))
            | (text.str.count_matches(TEMPLATE_WORDS) >= 2)
        ) & forum & ~comment,
        "flood": pl.col("flood"),
        "copypasta": pl.col("copypasta"),
        # Other languages; in Latin letters from four words on, since XDDDDD, QQ and a word of English are Taiwan's own.
        "foreign": (
            pl.col("lang").is_in(["ja", "ko", "other"])
            | ((pl.col("lang") == "latin") & (text.str.count_matches("[A-Za-z]{2,}") >= 4))
        ) & forum,
        "bot": text.str.contains(BOT) & forum,
    }  # fmt: skip
    found = shape.select(
        pl.concat_list(pl.when(condition).then(pl.lit(name)) for name, condition in rules.items())
        .list.drop_nulls()
        .alias("found")
    )["found"]
    return frame.with_columns(pl.col("flags").list.concat(found).list.unique(maintain_order=True))
