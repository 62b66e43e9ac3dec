"""Who answers whom: each builder turns posts into question-and-answer pairs; personas then choose among them.

A builder is a function from posts to pairs of `PAIR` columns, one row a candidate. `build_dialogues` runs the
feeds of every persona over them: length, likes, voice, best first. One pair goes to one persona.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from persona_dagster.config.personas import Feed, Persona, Personas
from persona_dagster.conversation.voice import voice_score
from persona_dagster.digest import keyed_hash, text_digest
from persona_dagster.records import DIALOGUE_SCHEMA

BUILDERS_VERSION = "1"

# A reply further from its original than this is answered to another post of the same title.
REPLY_DAYS = 60
# Fewer dialogues than this do not make a voice, nor a sample to judge it by: the yield says "too few".
TOO_FEW = 50

_ASKS = r"[?？]$|^(?:什麼|如何|怎麼|為什麼|為何|哪些|誰)|(?:嗎|呢|是什麼|差在哪裡?|怎麼辦)$"
_NUMBERING = r"^(?:\d+(?:\.\d+)*[.、:：]?\s+|[\p{So}\x{FE0F}\x{200D}]+\s*)+|\s*[:：！!]+$"  # "8.6.3 BFGS" asks for BFGS
_NOTE_QUESTIONS = ("請說明「{}」。", "「{}」是什麼？", "可以解釋一下{}嗎？", "我想了解{}，請幫我整理重點。")


@dataclass(frozen=True, slots=True)
class Built:
    """`frame`: DIALOGUE_SCHEMA. `report`: what each feed yielded."""

    frame: pl.DataFrame
    report: Yield


@dataclass(frozen=True, slots=True)
class Yield:
    """How many candidates each condition of a feed left: persona, builder, boards, then a column a condition."""

    feeds: pl.DataFrame

    def markdown(self) -> str:
        rows = ["| " + " | ".join(str(value) for value in row) + " |" for row in self.feeds.iter_rows()]
        return "\n".join([f"| {' | '.join(self.feeds.columns)} |", "|---" * self.feeds.width + "|", *rows])


def build_dialogues(posts: pl.DataFrame, personas: Personas, usable: pl.Expr | None = None) -> Built:
    """Dialogues of all personas out of `posts` (POST_SCHEMA, `dup_of` marked).

    `usable` is the corpus' word on which rows may be spoken; without it every row may. Duplicates are
    followed to the twin that was kept.
    """
    rows = _follow_duplicates(posts, usable)
    pairs = {name: build(rows) for name, build in BUILDERS.items()}
    chosen, report = [], []
    for name, persona in personas.personas.items():
        for feed in persona.feeds:
            frame, funnel = _feed(pairs[feed.builder], feed, persona)
            chosen.append(frame.with_columns(persona=pl.lit(name), builder=pl.lit(feed.builder)))
            report.append({"persona": name, "builder": feed.builder, "boards": ", ".join(feed.boards), **funnel})
    best = (
        pl.concat(chosen)
        .sort("voice", "pair_id", descending=[True, False], maintain_order=True)
        .unique("pair_id", keep="first", maintain_order=True)
        .sort("pair_id")
    )
    return Built(_dialogues(best), Yield(pl.DataFrame(report)))


def persona_yield(posts: pl.DataFrame, personas: Personas, usable: pl.Expr | None = None) -> pl.DataFrame:
    """What each persona would get from `posts`: persona, tag, dialogues, answer characters, verdict."""
    frame = build_dialogues(posts, personas, usable).frame
    counts = frame.group_by("persona").agg(
        dialogues=pl.len(),
        median_chars=pl.col("messages").list.last().struct.field("content").str.len_chars().median(),
        builders=pl.col("builder").value_counts(sort=True).struct.field("builder").str.join(", "),
    )
    known = pl.DataFrame({"persona": list(personas.personas), "tag": [p.tag for p in personas.personas.values()]})
    return known.join(counts, on="persona", how="left", maintain_order="left").with_columns(
        pl.col("dialogues").fill_null(0),
        verdict=pl.when(pl.col("dialogues").fill_null(0) < TOO_FEW).then(pl.lit("too few")).otherwise(pl.lit("enough")),
    )


def re_article(posts: pl.DataFrame) -> pl.DataFrame:
    """PTT `Re:` posts: what they quote asks, or else the original of the same title; the own words answer."""
    articles = posts.filter((pl.col("source") == "ptt") & (pl.col("kind") != "comment") & (pl.col("kind") != "title"))
    originals = articles.filter(~pl.col("is_reply")).select(
        "board",
        "topic",
        q_doc="doc_id",
        q_url="url",
        q_text="text",
        q_raw="text_raw",
        q_title="title",
        q_at="created_at",
    )
    replies = articles.filter(pl.col("is_reply"))
    near = (pl.col("created_at") - pl.col("q_at")).dt.total_days().is_between(0, REPLY_DAYS)
    answered = (
        replies.join(originals, on=["board", "topic"], how="left")
        .with_columns(near=near.fill_null(value=True) & pl.col("q_doc").is_not_null())
        .sort("near", "q_at", "q_doc", descending=True, nulls_last=True)
        .unique("doc_id", keep="first", maintain_order=True)
    )
    quotes = pl.col("quoted").fill_null("").str.len_chars() >= 4
    question = pl.when(quotes).then(pl.col("quoted"))
    found = pl.when(pl.col("near"))
    return _pairs(
        answered.filter(quotes | pl.col("near")),
        question=question.otherwise(found.then(_titled("q_title", "q_text"))),
        question_raw=question.otherwise(found.then(pl.concat_str("q_title", "q_raw", separator="\n"))),
        question_doc=found.then(pl.col("q_doc")),
        question_url=found.then(pl.col("q_url")),
        span=pl.when(quotes).then(pl.lit("quoted")).otherwise(pl.lit("original")),
    )


def top_comments(posts: pl.DataFrame) -> pl.DataFrame:
    """A PTT or Dcard post asks; its comments answer."""
    return _answers(posts, "comment")


def thread_replies(posts: pl.DataFrame) -> pl.DataFrame:
    """A Threads post asks; the replies to it, by others, answer."""
    found = _answers(posts.filter(pl.col("source") == "threads"), "reply")
    return found.filter(pl.col("answer_author").is_null() | (pl.col("answer_author") != pl.col("question_author")))


def qa_notes(posts: pl.DataFrame) -> pl.DataFrame:
    """A note's heading asks, its section answers; a heading that is no question is put as one."""
    notes = posts.filter((pl.col("source") == "notes") & pl.col("title").is_not_null())
    asked = pl.col("title").str.replace_all(_NUMBERING, "").str.strip_chars()
    form = pl.col("doc_id").map_elements(lambda doc: keyed_hash("note", doc) % len(_NOTE_QUESTIONS), pl.Int64)
    phrased = pl.coalesce(
        pl.when(asked.str.contains(_ASKS)).then(asked),
        *(pl.when(form == i).then(pl.format(text, asked)) for i, text in enumerate(_NOTE_QUESTIONS)),
    )
    return _pairs(
        notes,
        question=phrased,
        question_raw=phrased,
        question_doc=pl.lit(None, pl.String),
        question_url=pl.lit(None, pl.String),
        span=pl.lit(""),
    )


BUILDERS: dict[str, Callable[[pl.DataFrame], pl.DataFrame]] = {
    "re_article": re_article,
    "top_comments": top_comments,
    "thread_replies": thread_replies,
    "qa_notes": qa_notes,
}


def _follow_duplicates(posts: pl.DataFrame, usable: pl.Expr | None) -> pl.DataFrame:
    """The rows that may speak, with doc_id, PTT topic and thread; parents that were duplicates become their twins."""
    doc = pl.concat_str("source", pl.col("board").fill_null(""), "post_id", separator=":")
    topic = pl.col("title").str.replace(r"(?i)^\s*(?:(?:re|fw)\s*:\s*)+", "").str.strip_chars().str.to_lowercase()
    rows = posts.with_columns(doc_id=doc, topic=topic, is_reply=pl.col("title").str.contains(r"(?i)^\s*re\s*:"))
    rows = rows.with_columns(thread_doc=_thread())
    kept = rows.filter(pl.col("dup_of").is_null() & (usable if usable is not None else pl.lit(value=True)))
    names = rows.sort("doc_id").unique(["source", "post_id"], keep="first", maintain_order=True)
    parents = names.select("source", pl.coalesce("dup_of", "doc_id").alias("parent_doc"), parent_id="post_id")
    return kept.join(parents, on=["source", "parent_id"], how="left", maintain_order="left")


def _thread() -> pl.Expr:
    """The thread's name: for PTT articles, all of one board and title belong together, replies included."""
    article = (pl.col("source") == "ptt") & (pl.col("kind") != "comment") & pl.col("topic").is_not_null()
    root = pl.coalesce("thread_id", pl.col("parent_id"), pl.col("post_id"))
    return (
        pl.when(article)
        .then(pl.col("doc_id").sort_by("is_reply", "created_at", "doc_id").first().over("source", "board", "topic"))
        .otherwise(pl.concat_str("source", pl.col("board").fill_null(""), root, separator=":"))
    )


def _answers(posts: pl.DataFrame, kind: str) -> pl.DataFrame:
    questions = posts.filter(pl.col("kind") != "title").select(
        parent_doc="doc_id",
        q_url="url",
        q_text="text",
        q_raw="text_raw",
        q_title="title",
        q_thread="thread_doc",
        question_author="author_key",
    )
    found = posts.filter(pl.col("kind") == kind).join(questions, on="parent_doc", how="inner", maintain_order="left")
    return _pairs(
        found.with_columns(thread_doc="q_thread"),
        question=_titled("q_title", "q_text"),
        question_raw=pl.concat_str("q_title", "q_raw", separator="\n", ignore_nulls=True),
        question_doc=pl.col("parent_doc"),
        question_url=pl.col("q_url"),
        span=pl.lit(""),
    )


def _titled(title: str, text: str) -> pl.Expr:
    """Title and text as one question: without `Re:` and the category, and the title only where the text lacks it."""
    head = pl.col(title).fill_null("").str.replace(r"(?i)^\s*(?:(?:re|fw)\s*:\s*)*(?:\[[^\]]{1,8}\]\s*)?", "")
    body = pl.col(text).fill_null("").str.strip_chars()
    whole = pl.concat_str(head.str.strip_chars(), body, separator="\n").str.strip_chars()
    return pl.when((head != "") & body.str.starts_with(head)).then(body).otherwise(whole)


def _pairs(
    frame: pl.DataFrame,
    *,
    question: pl.Expr,
    question_raw: pl.Expr,
    question_doc: pl.Expr,
    question_url: pl.Expr,
    span: pl.Expr,
) -> pl.DataFrame:
    """The columns that feeds choose by. `pair_id` hashes where the pair comes from, not what it says."""
    author = pl.col("question_author") if "question_author" in frame.columns else pl.lit(None, pl.String)
    asked = question_doc.is_not_null()
    docs = pl.when(asked).then(pl.concat_list(question_doc, "doc_id")).otherwise(pl.concat_list("doc_id"))
    urls = pl.when(asked).then(pl.concat_list(question_url, "url")).otherwise(pl.concat_list("url"))
    found = frame.select(
        "source",
        "board",
        thread_id="thread_doc",
        doc_ids=docs,
        urls=urls,
        span=span,
        question=question,
        question_raw=question_raw,
        answer=pl.col("text").str.strip_chars(),
        answer_raw=pl.col("text_raw"),
        answer_author=pl.col("author_key"),
        question_author=author,
        likes=pl.col("score").fill_null(0),
    )
    names = [text_digest(*docs, span) for docs, span in found.select("doc_ids", "span").iter_rows()]
    return found.with_columns(pair_id=pl.Series(names, dtype=pl.String))


def _feed(pairs: pl.DataFrame, feed: Feed, persona: Persona) -> tuple[pl.DataFrame, dict[str, int]]:
    """The pairs that one feed takes, and how many stood after each condition."""
    here = pl.col("source").is_in(list(feed.sources))
    if feed.boards:
        here &= pl.col("board").is_in(list(feed.boards))
    found = pairs.filter(here)
    funnel = {"candidates": found.height}
    length = pl.col("answer").str.len_chars().is_between(*feed.answer_chars) & pl.col(
        "question"
    ).str.len_chars().is_between(*feed.question_chars)
    found = found.filter(length)
    funnel["of_length"] = found.height
    if feed.min_score is not None:
        found = found.filter(pl.col("likes") >= feed.min_score)
    funnel["liked"] = found.height
    found = found.with_columns(voice=voice_score(pl.col("question"), pl.col("answer"), persona.voice)).filter(
        pl.col("voice") >= feed.min_voice
    )
    funnel["in_voice"] = found.height
    found = found.sort("likes", "voice", "pair_id", descending=[True, True, False])
    asked = pl.col("doc_ids").list.first()
    found = found.filter(pl.int_range(pl.len()).over("source", asked) < feed.per_question)
    funnel["kept"] = found.height
    return found, funnel


def _dialogues(pairs: pl.DataFrame) -> pl.DataFrame:
    def turns(question: str, answer: str) -> pl.Expr:
        user = pl.struct(role=pl.lit("user"), content=pl.col(question))
        return pl.concat_list(user, pl.struct(role=pl.lit("assistant"), content=pl.col(answer)))

    return pairs.with_columns(
        messages_raw=turns("question_raw", "answer_raw"),
        messages=turns("question", "answer"),
        score=pl.col("voice").cast(pl.Float64),
    ).select(pl.col(name).cast(dtype) for name, dtype in DIALOGUE_SCHEMA.items())
