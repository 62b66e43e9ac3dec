"""Dialogues: pairs of the conversation graph and of notes, chosen for each persona by its voice, and joined to turns.

A builder is a function from posts and edges to pairs, one row a candidate. `build_dialogues` runs the feeds of every
persona over them: length, likes, safety, voice, best first. One pair goes to one persona. Pairs of the same two people
that follow each other become one dialogue of several turns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl

from persona_dagster.config.personas import Feed, Personas
from persona_dagster.conversation.graph import named_rows, reply_graph
from persona_dagster.conversation.safety import unsafe_kinds
from persona_dagster.digest import keyed_hash, text_digest
from persona_dagster.records import DIALOGUE_SCHEMA, HEADING_PATH, MESSAGES

BUILDERS_VERSION = "3"

# Edges less certain than this make no pair: the poster's own answers between others', a guess.
LEAST_CERTAIN = 0.7
SURE = 4.0  # a hint from here on: the source is the voice, and no encoder need read it (notes teach)
MOST_TURNS = 8  # pairs that one dialogue holds
# Fewer dialogues than this do not make a voice, nor a sample to judge it by: the yield says "too few".
TOO_FEW = 50

# What a pair must be, in this order, to become a dialogue: each named by what it is not.
CONDITIONS = ("no_feed", "not_of_length", "unsafe", "too_few_likes", "no_voice", "enough_answers")

_ASKS = r"[?？]$|^(?:什麼|如何|怎麼|為什麼|為何|哪些|誰)|(?:嗎|呢|是什麼|差在哪裡?|怎麼辦)$"
_NUMBERING = r"^(?:\d+(?:\.\d+)*[.、:：]?\s+|[\p{So}\x{FE0F}\x{200D}]+\s*)+|\s*[:：！!]+$"  # "8.6.3 BFGS" asks for BFGS
_NOTE_QUESTIONS = ("請說明「{}」。", "「{}」是什麼？", "可以解釋一下{}嗎？", "我想了解{}，請幫我整理重點。")


class VoiceJudge(Protocol):
    """Who says which voice an answer has: `voice_classifier.Voices`."""

    def scores(self, questions: Sequence[str], answers: Sequence[str], hints: pl.DataFrame) -> pl.DataFrame: ...

    def threshold(self, persona: str) -> float: ...


@dataclass(frozen=True, slots=True)
class Built:
    """`frame`: DIALOGUE_SCHEMA. `report`: what each feed yielded. `unsafe`: candidates kept out, by kind. `left_out`:
    of every post that stands in a pair the last condition (of `CONDITIONS`) that its pairs came to (doc_id, bucket)."""

    frame: pl.DataFrame
    report: Yield
    unsafe: dict[str, int]
    left_out: pl.DataFrame


@dataclass(frozen=True, slots=True)
class Yield:
    """How many candidates each condition of a feed left: persona, builder, boards, then a column a condition."""

    feeds: pl.DataFrame

    def markdown(self) -> str:
        rows = ["| " + " | ".join(str(value) for value in row) + " |" for row in self.feeds.iter_rows()]
        return "\n".join([f"| {' | '.join(self.feeds.columns)} |", "|---" * self.feeds.width + "|", *rows])


def build_dialogues(
    posts: pl.DataFrame,
    personas: Personas,
    judge: VoiceJudge,
    *,
    usable: pl.Expr | None = None,
    edges: pl.DataFrame | None = None,
    unsafe: Mapping[str, tuple[str, ...]] | None = None,
) -> Built:
    """Dialogues of all personas out of `posts` (POST_SCHEMA, `dup_of` marked).

    `usable` is the corpus' word on which rows may be spoken; without it every row may. Duplicates are followed to the
    twin that was kept. `edges`: the reply graph (GRAPH_SCHEMA), made here where none is given. `unsafe`: words by kind.
    """
    made = _pairs_of(posts, usable, edges)
    wanted = {name: _for_some_feed(found, name, personas) for name, found in made.items()}
    pairs, dropped = _safe(wanted, unsafe or {})
    judged = _judged(pairs, personas, judge)
    chosen, report = [], []
    came_to = {"no_feed": [*made.values()], "unsafe": [*wanted.values()]}
    for name, persona in personas.personas.items():
        for feed in persona.feeds:
            steps = _feed(judged[feed.builder], feed, name, judge.threshold(name))
            chosen.append(steps["kept"].with_columns(persona=pl.lit(name), builder=pl.lit(feed.builder)))
            counts = {step: frame.height for step, frame in steps.items()}
            report.append({"persona": name, "builder": feed.builder, "boards": ", ".join(feed.boards), **counts})
            came_to.setdefault("not_of_length", []).append(made[feed.builder].filter(_from_here(feed)))
            for step, condition in (
                ("of_length", "too_few_likes"),
                ("liked", "no_voice"),
                ("in_voice", "enough_answers"),
            ):
                came_to.setdefault(condition, []).append(steps[step])
    best = (
        pl.concat(chosen)
        .sort("voice", "pair_id", "persona", descending=[True, False, False], maintain_order=True)
        .unique("pair_id", keep="first", maintain_order=True)
        .sort("pair_id")
    )
    return Built(_dialogues(_turns(best)), Yield(pl.DataFrame(report)), dropped, _left_out(came_to))


def _left_out(came_to: Mapping[str, list[pl.DataFrame]]) -> pl.DataFrame:
    posts = [
        frame.select(pl.col("doc_ids").explode().unique().alias("doc_id"), bucket=pl.lit(condition))
        for condition in reversed(CONDITIONS)
        for frame in came_to[condition]
    ]
    return pl.concat(posts).unique("doc_id", keep="first", maintain_order=True)


def candidates(
    posts: pl.DataFrame, personas: Personas, *, usable: pl.Expr | None = None, edges: pl.DataFrame | None = None
) -> dict[str, pl.DataFrame]:
    """By builder the pairs that some feed could take, whatever their voice, each with a hint a persona (hint_…)."""
    return {name: _for_some_feed(found, name, personas) for name, found in _pairs_of(posts, usable, edges).items()}


def _pairs_of(posts: pl.DataFrame, usable: pl.Expr | None, edges: pl.DataFrame | None) -> dict[str, pl.DataFrame]:
    """All pairs by builder."""
    rows = _follow_duplicates(posts, usable)
    linked = _linked(rows, posts, reply_graph(posts) if edges is None else edges)
    return {name: build(linked) for name, build in BUILDERS.items()}


def persona_yield(frame: pl.DataFrame, personas: Personas) -> pl.DataFrame:
    """What each persona has of the dialogues in `frame`: persona, tag, dialogues, answer characters, verdict."""
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


def re_article(rows: pl.DataFrame) -> pl.DataFrame:
    """PTT `Re:` posts: what they quote asks, or else the original of the same title; the own words answer."""
    replies = rows.filter((pl.col("source") == "ptt") & (pl.col("kind") == "post") & pl.col("is_reply"))
    quotes = pl.col("quoted").fill_null("").str.len_chars() >= 4
    question = pl.when(quotes).then(pl.col("quoted"))
    found = pl.when(pl.col("q_doc").is_not_null())
    return _pairs(
        replies.filter(quotes | pl.col("q_doc").is_not_null()),
        question=question.otherwise(found.then(asked("q_title", "q_text"))),
        question_raw=question.otherwise(found.then(pl.concat_str("q_title", "q_raw", separator="\n"))),
        question_doc=found.then(pl.col("q_doc")),
        question_url=found.then(pl.col("q_url")),
        span=pl.when(quotes).then(pl.lit("quoted")).otherwise(pl.lit("original")),
    )


def top_comments(rows: pl.DataFrame) -> pl.DataFrame:
    """A comment under a PTT or Dcard post answers the post, or the comment that it names."""
    return _answers(rows.filter(pl.col("source") != "threads"))


def thread_replies(rows: pl.DataFrame) -> pl.DataFrame:
    """A Threads reply answers the post or reply above it."""
    return _answers(rows.filter(pl.col("source") == "threads"))


def qa_notes(posts: pl.DataFrame) -> pl.DataFrame:
    """A note's heading asks, its section answers; a heading that is no question is put as one, with its path."""
    notes = posts.filter((pl.col("source") == "notes") & pl.col("title").is_not_null())
    plain = pl.element().str.replace_all(_NUMBERING, "").str.strip_chars()
    headings = pl.col("title").str.split(HEADING_PATH).list.eval(plain.filter(plain != ""))
    heading, path = headings.list.last().fill_null(""), headings.list.join(HEADING_PATH)
    form = pl.col("doc_id").map_elements(lambda doc: keyed_hash("note", doc) % len(_NOTE_QUESTIONS), pl.Int64)
    phrased = pl.coalesce(
        pl.when(heading.str.contains(_ASKS)).then(heading),
        *(pl.when(form == i).then(pl.format(text, path)) for i, text in enumerate(_NOTE_QUESTIONS)),
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
    """The rows that may speak, each under its names of the graph."""
    return named_rows(posts).filter(pl.col("dup_of").is_null() & (usable if usable is not None else pl.lit(value=True)))


def _linked(rows: pl.DataFrame, posts: pl.DataFrame, edges: pl.DataFrame) -> pl.DataFrame:
    """Rows with what they answer (q_…): the kept twin of the edge's parent, where it may speak; null without."""
    doc = pl.concat_str("source", pl.col("board").fill_null(""), "post_id", separator=":")
    twins = (
        posts.filter(pl.col("dup_of").is_not_null()).select(doc.alias("parent_doc"), twin="dup_of").unique("parent_doc")
    )
    sure = edges.filter((pl.col("rank") == 1) & (pl.col("certainty") >= LEAST_CERTAIN)).join(
        twins, on="parent_doc", how="left"
    )
    sure = sure.select("doc_id", "by_host", q_doc=pl.coalesce("twin", "parent_doc"))
    questions = rows.filter(pl.col("kind") != "title").select(
        q_doc="doc_id",
        q_url="url",
        q_text="text",
        q_raw="text_raw",
        q_title="title",
        q_thread="thread_doc",
        question_author="author_key",
    )
    questions = questions.join(sure.select(q_doc="doc_id", q_parent="q_doc"), on="q_doc", how="left")
    answered = sure.join(questions.unique("q_doc"), on="q_doc", how="inner")
    return rows.drop("parent_doc").join(answered, on="doc_id", how="left", maintain_order="left")


def _answers(rows: pl.DataFrame) -> pl.DataFrame:
    """Comments and replies by others than the one who asks; the poster's own are turns of the poster, not answers."""
    own = (pl.col("author_key") == pl.col("question_author")).fill_null(value=False)
    found = rows.filter(
        pl.col("kind").is_in(["comment", "reply"]) & pl.col("q_doc").is_not_null() & ~own & ~pl.col("by_host")
    )
    return _pairs(
        found.with_columns(thread_doc="q_thread"),
        question=asked("q_title", "q_text"),
        question_raw=pl.concat_str("q_title", "q_raw", separator="\n", ignore_nulls=True),
        question_doc=pl.col("q_doc"),
        question_url=pl.col("q_url"),
        span=pl.lit(""),
    )


def asked(title: str, text: str) -> pl.Expr:
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
    known = question_doc.is_not_null()
    docs = pl.when(known).then(pl.concat_list(question_doc, "doc_id")).otherwise(pl.concat_list("doc_id"))
    urls = pl.when(known).then(pl.concat_list(question_url, "url")).otherwise(pl.concat_list("url"))
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
        question_author=pl.col("question_author"),
        question_parent=pl.col("q_parent"),
        likes=pl.col("score").fill_null(0),
    )
    names = [text_digest(*docs, span) for docs, span in found.select("doc_ids", "span").iter_rows()]
    return found.with_columns(pair_id=pl.Series(names, dtype=pl.String))


def _from_here(feed: Feed) -> pl.Expr:
    here = pl.col("source").is_in(list(feed.sources))
    return here & pl.col("board").is_in(list(feed.boards)) if feed.boards else here


def _of_length(feed: Feed) -> pl.Expr:
    question, answer = (pl.col(name).str.len_chars() for name in ("question", "answer"))
    return question.is_between(*feed.question_chars) & answer.is_between(*feed.answer_chars)


def _for_some_feed(pairs: pl.DataFrame, builder: str, personas: Personas) -> pl.DataFrame:
    """The pairs that some feed could take, whatever their voice, with the hint of each persona's best feed (hint_…):
    nothing else need be read by an encoder."""
    feeds = {
        name: [feed for feed in persona.feeds if feed.builder == builder] for name, persona in personas.personas.items()
    }
    takes = [_from_here(feed) & _of_length(feed) for found in feeds.values() for feed in found]
    hints = {
        f"hint_{name}": pl.max_horizontal(
            pl.lit(0.0), *(pl.when(_from_here(feed)).then(feed.hint).otherwise(0.0) for feed in found)
        )
        for name, found in feeds.items()
    }
    return pairs.filter(pl.any_horizontal(pl.lit(value=False), *takes).fill_null(value=False)).with_columns(**hints)


def _safe(
    pairs: dict[str, pl.DataFrame], unsafe: Mapping[str, tuple[str, ...]]
) -> tuple[dict[str, pl.DataFrame], dict[str, int]]:
    """Pairs without unsafe words, and how many were left out by kind."""
    kept: dict[str, pl.DataFrame] = {}
    counts: dict[str, int] = {}
    for name, found in pairs.items():
        flagged = found.with_columns(
            unsafe=unsafe_kinds("question", "answer", dict(unsafe)) if unsafe else pl.lit([], pl.List(pl.String))
        )
        for kind in flagged["unsafe"].explode().drop_nulls():
            counts[kind] = counts.get(kind, 0) + 1
        kept[name] = flagged.filter(pl.col("unsafe").list.len() == 0).drop("unsafe")
    return kept, counts


def _judged(pairs: dict[str, pl.DataFrame], personas: Personas, judge: VoiceJudge) -> dict[str, pl.DataFrame]:
    """The pairs with a column of probabilities a persona (voice_…); each distinct exchange is read once."""
    names = list(personas.personas)
    exchange = ("question", "answer")
    texts = (
        pl.concat([found.select(*exchange, *(f"hint_{name}" for name in names)) for found in pairs.values()])
        .group_by(exchange, maintain_order=True)
        .agg(pl.all().max())
    )
    sure = pl.any_horizontal(pl.col(f"hint_{name}") >= SURE for name in names)
    read = texts.filter(~sure)
    hints = read.select(pl.col(f"hint_{name}").alias(name) for name in names)
    found = judge.scores(read["question"].to_list(), read["answer"].to_list(), hints)
    known = pl.concat(
        [
            pl.concat(
                [read.select(exchange), found.select(_as_voice(pl.col(name), name) for name in names)], how="horizontal"
            ),
            texts.filter(sure).select(
                *exchange, *(_as_voice(pl.when(pl.col(f"hint_{name}") >= SURE).then(0.5), name) for name in names)
            ),
        ]
    )
    return {
        name: rows.join(known, on=exchange, how="left", maintain_order="left").drop([f"hint_{each}" for each in names])
        for name, rows in pairs.items()
    }


def _as_voice(probability: pl.Expr, name: str) -> pl.Expr:
    return probability.cast(pl.Float64).alias(f"voice_{name}")


def _hinted(probability: pl.Expr, hint: float) -> pl.Expr:
    """The probability with `hint` nats on top: odds times e^hint."""
    odds = probability / (1 - probability).clip(1e-9)
    raised = odds * float(np.exp(hint))
    return raised / (1 + raised)


def _feed(pairs: pl.DataFrame, feed: Feed, name: str, threshold: float) -> dict[str, pl.DataFrame]:
    """The pairs that stand after each condition of one feed; `kept` are those that it takes."""
    steps = {"candidates": pairs.filter(_from_here(feed))}
    steps["of_length"] = steps["candidates"].filter(_of_length(feed))
    liked = pl.lit(value=True) if feed.min_score is None else pl.col("likes") >= feed.min_score
    steps["liked"] = steps["of_length"].filter(liked)
    voice = _hinted(pl.col(f"voice_{name}"), feed.hint)
    found = steps["liked"].with_columns(voice=voice).filter(pl.col("voice") >= threshold)
    steps["in_voice"] = found.sort("voice", "likes", "pair_id", descending=[True, True, False])
    asked = pl.col("doc_ids").list.first()
    steps["kept"] = steps["in_voice"].filter(pl.int_range(pl.len()).over("source", asked) < feed.per_question)
    return steps


def _turns(pairs: pl.DataFrame) -> pl.DataFrame:
    """Pairs whose question answers the answer of another, between the same two known people and for one persona,
    become one dialogue with it. Columns `asked` and `asked_raw` … hold lists of turns from here on."""
    rows = {row["pair_id"]: row for row in pairs.iter_rows(named=True)}
    by_answer = {(row["doc_ids"][-1], row["persona"]): pair for pair, row in rows.items()}
    before: dict[str, str] = {}
    for pair, row in rows.items():
        earlier = by_answer.get((row["question_parent"], row["persona"]))
        people = ("answer_author", "question_author")
        if earlier and all(row[who] and row[who] == rows[earlier][who] for who in people):
            before[pair] = earlier
    merged = []
    for pair, row in rows.items():
        if pair in before.values():
            continue
        chain = [row]
        while (earlier := before.get(chain[0]["pair_id"])) and len(chain) < MOST_TURNS:
            chain.insert(0, rows[earlier])
        docs = list(dict.fromkeys(doc for one in chain for doc in one["doc_ids"]))
        urls = dict(
            zip(
                (doc for one in chain for doc in one["doc_ids"]),
                (url for one in chain for url in one["urls"]),
                strict=True,
            )
        )
        merged.append(
            row
            | {
                "pair_id": pair if len(chain) == 1 else text_digest(*docs, "turns"),
                "doc_ids": docs,
                "urls": [urls[doc] for doc in docs],
                "voice": min(one["voice"] for one in chain),
                "messages": [turn for one in chain for turn in _turn(one, "question", "answer")],
                "messages_raw": [turn for one in chain for turn in _turn(one, "question_raw", "answer_raw")],
            }
        )
    return pl.DataFrame(merged, schema={**pairs.schema, "messages": MESSAGES, "messages_raw": MESSAGES})


def _turn(row: Mapping[str, str], question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": row[question]}, {"role": "assistant", "content": row[answer]}]


def _dialogues(pairs: pl.DataFrame) -> pl.DataFrame:
    return (
        pairs.with_columns(score=pl.col("voice").cast(pl.Float64))
        .select(pl.col(name).cast(dtype) for name, dtype in DIALOGUE_SCHEMA.items())
        .sort("pair_id")
    )
