"""Copies: the exact join against brute force, star clusters, and what is no copy."""

from __future__ import annotations

import random

import numpy as np
import polars as pl
import pytest

from persona_dagster.corpus import dedup_index, setjoin
from persona_dagster.corpus.dedup import find_duplicates, mark_duplicates, normalised, stars


def brute_force(texts: list[str], threshold: float = 0.7) -> dict[tuple[int, int], float]:
    grams = [{text[i : i + 3] for i in range(len(text) - 2)} for text in texts]
    found = {}
    for i, a in enumerate(grams):
        for j in range(i + 1, len(grams)):
            b = grams[j]
            if a and b and min(len(a), len(b)) >= threshold * max(len(a), len(b)) - 1e-9:
                shared = len(a & b)
                jaccard = shared / (len(a) + len(b) - shared)
                if jaccard >= threshold - 1e-9:
                    found[i, j] = jaccard
    return found


def joined(texts: list[str], threshold: float = 0.7) -> dict[tuple[int, int], float]:
    left, right, jaccard = setjoin.similar_pairs(pl.Series(texts, dtype=pl.String), threshold)
    return {(int(a), int(b)): float(j) for a, b, j in zip(left, right, jaccard, strict=True)}


def edited(text: str, chance: random.Random) -> str:
    letters = list(text or "空")
    for _ in range(chance.randint(0, max(1, len(letters) // 8))):
        place = chance.randrange(len(letters))
        letters[place : place + chance.randint(0, 1)] = chance.choice("的一是不我有他這人們")
    return "".join(letters)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.9])
def test_the_join_finds_what_brute_force_finds(seed, threshold):
    chance = random.Random(seed)
    alphabet = "天地玄黃宇宙洪荒日月盈昃辰宿列張"
    texts = ["".join(chance.choices(alphabet, k=chance.randint(0, 60))) for _ in range(120)]
    texts += [edited(text, chance) for text in texts if len(text) > 5] * 2
    expected = brute_force(texts, threshold)
    assert len(expected) > 100
    found = joined(texts, threshold)
    assert found.keys() == expected.keys()
    assert all(abs(found[pair] - expected[pair]) < 1e-12 for pair in expected)


def test_the_join_finds_what_brute_force_finds_on_real_rows(real_rows, soak):
    texts = (
        pl.DataFrame({"t": [row["text"] for row in real_rows]})
        .select(normalised(pl.col("t")))["t"]
        .unique(maintain_order=True)
    )
    chance = random.Random(3)
    sample = chance.sample([text for text in texts if len(text) >= 5], 6000 if soak else 1200)
    sample += [edited(text, chance) for text in sample[:400]]
    expected = brute_force(sample)
    assert len(expected) > 200
    assert joined(sample) == pytest.approx(expected)


def test_an_increment_finds_the_pairs_that_a_full_run_adds():
    chance = random.Random(5)
    texts = ["".join(chance.choices("春眠不覺曉處聞啼鳥夜來風雨", k=chance.randint(5, 40))) for _ in range(400)]
    texts += [edited(text, chance) for text in texts[:200]]
    fresh = np.arange(len(texts)) >= 560
    left, right, _ = setjoin.similar_pairs(pl.Series(texts), 0.7, fresh)
    full = {pair for pair in brute_force(texts) if fresh[pair[0]] or fresh[pair[1]]}
    assert set(zip(left.tolist(), right.tolist(), strict=True)) == full
    assert full


def test_stars_make_no_chains():
    # a-b-c-d, each like its neighbour only: b repeats a; c is like b, which is gone, so c is kept; d repeats c
    removed, pair = stars(np.array([0, 1, 2]), np.array([1, 2, 3]))
    assert dict(zip(removed.tolist(), pair.tolist(), strict=True)) == {1: 0, 3: 2}


def posts(frame_of, texts: list[str], **columns) -> pl.DataFrame:
    return frame_of(texts, **columns).with_columns(pl.Series("text", texts, dtype=pl.String))


def test_copies_point_to_the_kept_row(frame_of):
    base = "昨天跟男友大吵一架，他居然說我想太多，真的很傻眼"
    frame = posts(frame_of, [base, base, base + "！！", base.replace("昨天", "前天"), "完全不一樣的另外一篇文章喔"])
    result = mark_duplicates(frame)
    assert result.frame["dup_of"].to_list() == [None, *["ptt:Boy-Girl:p0"] * 3, None]
    assert dict(result.matches.select("removed", "cause").iter_rows()) == {
        "ptt:Boy-Girl:p1": "exact",
        "ptt:Boy-Girl:p2": "same_words",
        "ptt:Boy-Girl:p3": "near",
    }
    assert result.matches["jaccard"].is_between(0.7, 1.0).all()


def test_the_older_trainable_row_is_kept(frame_of):
    from datetime import UTC, datetime

    frame = posts(frame_of, ["一篇被轉貼很多次的文章內容"] * 3).with_columns(
        created_at=pl.Series(
            [datetime(2022, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC), datetime(2019, 1, 1, tzinfo=UTC)]
        ),
        flags=pl.Series([[], [], ["flood"]], dtype=pl.List(pl.String)),
    )
    assert mark_duplicates(frame).frame["dup_of"].to_list() == ["ptt:Boy-Girl:p1", None, "ptt:Boy-Girl:p1"]


def test_short_comments_and_digits_are_no_copies(frame_of):
    comments = posts(frame_of, ["推", "推", "笑死", "笑死", "XD"], kind="comment")
    assert mark_duplicates(comments).frame["dup_of"].null_count() == 5
    numbered = posts(frame_of, [f"減肥日記第{n}天，今天也是努力運動的一天" for n in range(3)])
    assert mark_duplicates(numbered).frame["dup_of"].null_count() == 3


def test_matches_report_the_true_jaccard(frame_of):
    matches = mark_duplicates(posts(frame_of, ["abcdefghij", "abcdefghik", "zzz"])).matches
    assert matches.rows() == [("ptt:Boy-Girl:p0", "ptt:Boy-Girl:p1", pytest.approx(7 / 9), "near")]


def corpus(frame_of, chance: random.Random, size: int) -> pl.DataFrame:
    """Rows of which many repeat others, exactly, in other signs, with edits, or in digits alone."""
    texts = ["".join(chance.choices("春眠不覺曉處聞啼鳥夜來風雨", k=chance.randint(0, 40))) for _ in range(size)]
    for change in (str, lambda text: text + "！", lambda text: edited(text, chance), lambda text: f"{text}{size}"):
        texts += [change(text) for text in chance.sample(texts, size // 3)]
    chance.shuffle(texts)
    return posts(frame_of, texts).with_columns(post_id=pl.Series([str(chance.random()) for _ in texts]))


@pytest.mark.parametrize(("seed", "segments"), [(0, 8), (1, 1)])
def test_an_index_gives_what_a_full_run_gives_however_the_corpus_changes(
    frame_of, tmp_path, monkeypatch, seed, segments
):
    monkeypatch.setattr(dedup_index, "SEGMENTS", segments)
    chance = random.Random(seed)
    frame = corpus(frame_of, chance, 300)
    known = len(frame)
    for step in range(5):
        by_index, anew = mark_duplicates(frame, tmp_path), mark_duplicates(frame)
        assert by_index.frame.equals(anew.frame), step
        assert by_index.matches.sort("removed").equals(anew.matches.sort("removed")), step
        assert {"exact", "same_words", "near"} <= set(anew.matches["cause"])
        # some rows are edited, some go, new ones come: a few, and once more than an increment takes
        few = corpus(frame_of, chance, 8 if step != 3 else 300)
        text = frame["text"].to_list()
        for row in chance.sample(range(len(text)), 5):
            text[row] = edited(chance.choice(text), chance)
        frame = pl.concat(
            [frame.with_columns(text=pl.Series(text)).sample(fraction=0.98, seed=step, shuffle=True), few]
        )
    assert len(frame) > known


def test_a_corpus_in_parquet_gives_what_one_in_memory_gives(frame_of, tmp_path, monkeypatch):
    frame = corpus(frame_of, random.Random(2), 300)
    wanted = mark_duplicates(frame)
    for number, part in enumerate(frame.iter_slices(90)):
        part.write_parquet(tmp_path / f"{number}.parquet")
    monkeypatch.setattr(dedup_index, "ROWS_AT_ONCE", 64)
    dup_of, matches = find_duplicates(pl.scan_parquet(tmp_path / "*.parquet"), tmp_path / "index")
    assert dup_of.equals(wanted.frame["dup_of"], null_equal=True) and matches.equals(wanted.matches)


def test_texts_that_share_half_their_hash_keep_their_nodes():
    names = dedup_index.Names()
    hashes = dedup_index.Hashes(np.array([5, 5, 7, 5], np.uint64), np.array([3, 1, 1, 2], np.uint64))
    names.add(hashes, np.arange(4))
    assert names.find(hashes).tolist() == [0, 1, 2, 3]
    unknown = dedup_index.Hashes(np.array([5, 8], np.uint64), np.array([9, 1], np.uint64))
    assert names.find(unknown).tolist() == [-1, -1]


def test_long_texts_that_are_alike_are_found(frame_of):
    chance = random.Random(4)
    texts = ["".join(chance.choices([chr(0x4E00 + n) for n in range(400)], k=600)) for _ in range(30)]
    texts += [edited(text, chance) for text in texts[:20]]
    assert joined(texts) == pytest.approx(brute_force(texts))
    assert len(joined(texts)) > 5


def test_an_index_that_cannot_be_read_is_made_anew_and_holds_no_text(frame_of, tmp_path):
    frame = corpus(frame_of, random.Random(9), 100)
    wanted = mark_duplicates(frame, tmp_path).frame
    stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert not any(text.encode() in stored for text in frame["text"] if len(text) > 4)
    (tmp_path / "1-0.keys.npy").write_bytes(b"torn")
    assert mark_duplicates(frame, tmp_path).frame.equals(wanted)
    (tmp_path / "1-texts.one.npy").unlink()
    assert mark_duplicates(frame, tmp_path).frame.equals(wanted)
    shouted = frame.head(20).with_columns(pl.col("text") + "！", post_id=pl.col("post_id") + "b")  # no new words at all
    more = pl.concat([frame, shouted])
    assert mark_duplicates(more, tmp_path).frame.equals(mark_duplicates(more).frame)
    nothing = frame.clear()
    assert mark_duplicates(nothing, tmp_path).frame.equals(nothing)
