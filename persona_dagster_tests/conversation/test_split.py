"""The split: leaks planted and caught, the ledger's promises under growth, stratification."""

from __future__ import annotations

import random
from pathlib import Path

import polars as pl
import pytest

from persona_dagster.config.split import SplitSpec, load_split
from persona_dagster.conversation.split import read_ledger, split_dialogues, write_ledger
from persona_dagster.conversation.train_test_leakage import STEPS, largest_jaccard, near_duplicates, spoken
from persona_dagster.digest import text_digest
from persona_dagster_tests.conversation.made import dialogue, dialogues, many

SPEC = SplitSpec()
LONG = "分手三個月了還是放不下怎麼辦，每天晚上都會夢到他，朋友都叫我走出來，可是我真的做不到。"


def sides(result: object) -> dict[str, str]:
    return dict(result.frame.select("pair_id", "split").iter_rows())  # type: ignore[attr-defined]


def grams(text: str) -> set[str]:
    letters = "".join(c for c in text.lower() if c.isalnum())
    return {letters[i : i + 3] for i in range(len(letters) - 2)}


def brute(left: list[str], right: list[str]) -> float:
    return max((len(a & b) / len(a | b) for a in map(grams, left) for b in map(grams, right) if a and b), default=0.0)


def leaks(frame: pl.DataFrame, split: dict[str, str]) -> set[str]:
    """The kinds of leak across the split, found by brute force over all pairs."""
    rows = [(row, grams(text)) for row, text in zip(frame.iter_rows(named=True), spoken(frame), strict=True)]
    placed = [(split[row["pair_id"]], row, said) for row, said in rows if split[row["pair_id"]] != "quarantine"]
    found = set()
    for side, a, x in placed:
        for other, b, y in placed:
            if side == other:
                continue
            if a["thread_id"] == b["thread_id"]:
                found.add("thread")
            if not set(a["doc_ids"]).isdisjoint(b["doc_ids"]):
                found.add("post")
            if (shared := len(x & y)) and shared / (len(x) + len(y) - shared) >= 0.8:
                found.add("text")
    return found


def planted(seed: int, size: int = 120) -> pl.DataFrame:
    """Dialogues with every kind of tie among them, at random: threads, shared posts, exact and near copies."""
    rng = random.Random(seed)
    rows = []
    for i in range(size):
        row = dialogue(f"{seed}-{i}", rng.choice(["mentor", "mouthpiece", "assistant"]))
        if rows and rng.random() < 0.4:
            other = rng.choice(rows)
            match rng.randrange(4):
                case 0:
                    row["thread_id"] = other["thread_id"]
                case 1:
                    row["doc_ids"] = [other["doc_ids"][0], row["doc_ids"][1]]
                case 2:
                    row["messages"] = other["messages"]
                case 3:
                    content = other["messages"][1]["content"]
                    edited = content[:-2] + rng.choice("甲乙丙丁戊") + "！"
                    row["messages"] = [other["messages"][0], {"role": "assistant", "content": edited}]
        rows.append(row)
    return dialogues(rows)


@pytest.mark.parametrize("seed", range(6))
def test_planted_leaks_are_caught(seed: int) -> None:
    frame = planted(seed)
    result = split_dialogues(frame, None, SPEC)
    drawn = {pair: "test" if random.Random(pair).random() < 0.15 else "train" for pair in frame["pair_id"]}
    assert leaks(frame, drawn) == {"thread", "post", "text"}, "the plants must leak under a random split"
    assert leaks(frame, sides(result)) == set()
    assert result.report.quarantined == 0 and result.report.largest_jaccard < 0.8


def tied(kind: str) -> pl.DataFrame:
    """Thirty pairs of dialogues that have one thing in common, and sixty that have nothing."""
    rows = [dialogue(f"{i}") for i in range(60)]
    for i in range(30):
        left = dialogue(f"{i}-left")
        right = dialogue(f"{i}-right")
        said = left["messages"][1]["content"]
        match kind:
            case "thread":
                right["thread_id"] = left["thread_id"]
            case "post":
                right["doc_ids"] = [left["doc_ids"][0], right["doc_ids"][1]]
            case "exact":
                right["messages"] = left["messages"]
            case "near":
                right["messages"] = [left["messages"][0], {"role": "assistant", "content": f"{said[:-1]}！嗯"}]
        rows += [left, right]
    return dialogues(rows)


@pytest.mark.parametrize(
    ("kind", "leak"), [("thread", "thread"), ("post", "post"), ("exact", "text"), ("near", "text")]
)
def test_a_planted_leak_of_each_kind_is_caught(kind: str, leak: str) -> None:
    frame = tied(kind)
    drawn = {pair: "test" if random.Random(pair).random() < 0.3 else "train" for pair in frame["pair_id"]}
    assert leaks(frame, drawn) == {leak}, "the plants must leak under a random split"
    if leak == "text":
        train, test = (frame.filter(pl.col("pair_id").replace_strict(drawn) == side) for side in ("train", "test"))
        caught = largest_jaccard(spoken(train), spoken(test), SPEC.min_chars)  # what the manifest and the check look at
        assert caught == 1.0 if kind == "exact" else 0.8 <= caught < 1.0
    result = split_dialogues(frame, None, SPEC)
    assert leaks(frame, sides(result)) == set() and result.report.largest_jaccard < 0.8
    assert result.report.components == 90 and set(sides(result).values()) == {"train", "validation", "test"}


@pytest.mark.parametrize("seed", range(8))
def test_growth_moves_nothing_and_leaks_nothing(seed: int) -> None:
    """Rows arrive in four batches; what a ledger holds never changes side, and no tie crosses."""
    frame = planted(seed, 160)
    rng = random.Random(seed)
    order = list(range(frame.height))
    rng.shuffle(order)
    ledger, before = None, {}
    for end in (40, 80, 120, 160):
        now = frame[sorted(order[:end])]
        result = split_dialogues(now, ledger, SPEC)
        after = sides(result)
        moved = {pair: (side, after[pair]) for pair, side in before.items() if after[pair] != side}
        assert not moved
        assert leaks(now, after) == set()
        ledger, before = result.ledger, after
    again = split_dialogues(frame.sample(fraction=1, shuffle=True, seed=1), ledger, SPEC)
    assert again.frame.equals(result.frame) and again.ledger.equals(ledger)


def test_a_row_that_bridges_train_and_test_is_quarantined() -> None:
    first = split_dialogues(many(mentor=40), None, SPEC)
    by_side = {side: pair for pair, side in sides(first).items()}
    rows = many(mentor=40)
    tied = rows.filter(pl.col("pair_id").is_in(list(by_side.values()))).to_dicts()
    bridge = dialogue("bridge", doc_ids=[tied[0]["doc_ids"][0], tied[1]["doc_ids"][0]])
    beside = dialogue("beside", thread_id=next(r for r in tied if r["pair_id"] == by_side["train"])["thread_id"])
    grown = pl.concat([rows, dialogues([bridge, beside])])
    second = split_dialogues(grown, first.ledger, SPEC)
    assert sides(second)[bridge["pair_id"]] == "quarantine" and second.report.quarantined == 1
    assert sides(second)[beside["pair_id"]] == "train"
    assert all(sides(second)[pair] == side for pair, side in sides(first).items())


def test_when_known_rows_grow_together_test_stays_in_test() -> None:
    frame = many(mentor=40)
    first = split_dialogues(frame, None, SPEC)
    by_side = {side: pair for pair, side in sides(first).items()}
    twin = frame.filter(pl.col("pair_id") == by_side["test"])["messages"][0]
    edited = frame.to_dicts()
    for row in edited:
        if row["pair_id"] == by_side["train"]:
            row["messages"] = twin.to_list()
    second = split_dialogues(dialogues(edited), first.ledger, SPEC)
    assert sides(second)[by_side["test"]] == "test"
    assert sides(second)[by_side["train"]] == "quarantine"


def test_a_chain_of_new_rows_from_train_to_test_breaks() -> None:
    first = split_dialogues(many(mentor=40), None, SPEC)
    docs = dict(many(mentor=40).select("pair_id", "doc_ids").iter_rows())
    by_side = {side: docs[pair][0] for pair, side in sides(first).items()}
    chain = [
        dialogue("near train", doc_ids=[by_side["train"], "x:1"]),
        dialogue("middle", doc_ids=["x:1", "x:2"]),
        dialogue("near test", doc_ids=["x:2", by_side["test"]]),
    ]
    grown = pl.concat([many(mentor=40), dialogues(chain)])
    second = split_dialogues(grown, first.ledger, SPEC)
    assert leaks(grown, sides(second)) == set()
    assert [sides(second)[row["pair_id"]] for row in chain] == ["train", "train", "quarantine"]


def test_what_is_gone_for_a_while_comes_back_to_its_side() -> None:
    frame = many(mentor=60)
    first = split_dialogues(frame, None, SPEC)
    part = split_dialogues(frame.head(20), first.ledger, SPEC)
    assert part.ledger.height == 60
    assert sides(split_dialogues(frame, part.ledger, SPEC)) == sides(first)


def test_every_persona_gets_its_share_of_test_rows() -> None:
    result = split_dialogues(many(mentor=200, mouthpiece=100, assistant=40), None, SPEC)
    tested = {name: counts.get("test", 0) for name, counts in result.report.by_persona.items()}
    assert tested == {"mentor": 30, "mouthpiece": 15, "assistant": 6}
    counted = SplitSpec(test_rows={"mentor": 7})
    report = split_dialogues(many(mentor=200, mouthpiece=100), None, counted).report
    assert {name: counts["test"] for name, counts in report.by_persona.items()} == {"mentor": 7, "mouthpiece": 15}


def test_every_persona_gets_its_share_of_validation_rows() -> None:
    report = split_dialogues(many(mentor=200, mouthpiece=100, assistant=4), None, SPEC).report
    held = {name: counts.get("validation", 0) for name, counts in report.by_persona.items()}
    assert held == {"mentor": 20, "mouthpiece": 10, "assistant": 1}
    counted = split_dialogues(many(mentor=200), None, SplitSpec(validation_rows={"mentor": 3})).report
    assert counted.by_persona["mentor"] == {"test": 30, "validation": 3, "train": 167}


def test_a_row_that_bridges_validation_and_test_or_train_is_quarantined() -> None:
    frame = many(mentor=80)
    first = split_dialogues(frame, None, SPEC)
    docs = dict(frame.select("pair_id", "doc_ids").iter_rows())
    by_side = {side: docs[pair][0] for pair, side in sides(first).items()}
    for ends in (("validation", "test"), ("train", "validation")):
        bridge = dialogue(f"bridge {ends}", doc_ids=[by_side[ends[0]], by_side[ends[1]]])
        chain = [
            dialogue("near the lower", doc_ids=[by_side[ends[0]], "x:1"]),
            dialogue("near the higher", doc_ids=["x:1", by_side[ends[1]]]),
        ]
        second = sides(split_dialogues(pl.concat([frame, dialogues([bridge, *chain])]), first.ledger, SPEC))
        assert second[bridge["pair_id"]] == "quarantine"
        assert [second[row["pair_id"]] for row in chain] == [ends[0], "quarantine"]


def test_a_ledger_without_validation_gives_it_some_of_train_and_none_of_test() -> None:
    frame = many(mentor=100)
    old = split_dialogues(frame, None, SplitSpec(validation_rows={"mentor": 0})).ledger
    assert set(old["split"]) == {"train", "test"}
    grown = split_dialogues(pl.concat([frame, many(mouthpiece=40)]), old, SPEC)
    before, after = dict(old.select("pair_id", "split").iter_rows()), sides(grown)
    moved = {(side, after[pair]) for pair, side in before.items()}
    assert moved == {("train", "train"), ("train", "validation"), ("test", "test")}


def test_a_persona_in_one_thread_gets_no_test_row_and_the_report_says_so() -> None:
    rows = [dialogue(f"{i}", thread_id="ptt:Hate:one") for i in range(30)]
    report = split_dialogues(dialogues(rows), None, SPEC).report
    assert report.largest_component_share == 1.0 and len(report.warnings) == 3


def test_one_author_stays_on_one_side_when_asked() -> None:
    rows = dialogues(dialogue(f"{i}", answer_author=f"a{i % 24}") for i in range(120))
    split = sides(split_dialogues(rows, None, SplitSpec(by_author=True)))
    by_author: dict[str, set[str]] = {}
    for pair, author in rows.select("pair_id", "answer_author").iter_rows():
        by_author.setdefault(author, set()).add(split[pair])
    assert all(len(found) == 1 for found in by_author.values())
    assert set(split.values()) == {"train", "validation", "test"}


def test_capybara_keeps_the_hubs_split_but_for_copies() -> None:
    rows = [
        dialogue(f"{i}", "general", source="capybara", board="test" if i < 20 else "train", thread_id=f"c{i}")
        for i in range(80)
    ]
    rows[50]["messages"] = rows[3]["messages"]  # the Hub's own leak
    split = sides(split_dialogues(dialogues(rows), None, SPEC))
    assert [split[row["pair_id"]] for row in rows[:20]] == ["test"] * 20
    assert split[rows[50]["pair_id"]] == "quarantine"
    assert {split[row["pair_id"]] for row in rows[20:50]} == {"train", "validation"}


def test_chats_of_a_file_without_splits_are_drawn_from_like_the_others() -> None:
    chats = many(mentor=100).with_columns(source=pl.lit("capybara"), board=pl.lit("train"), persona=pl.lit("general"))
    assert split_dialogues(chats, None, SplitSpec(test_share=0.2)).report.by_persona["general"]["test"] == 20
    hub = chats.with_columns(board=pl.when(pl.int_range(pl.len()) < 3).then(pl.lit("test")).otherwise("board"))
    assert split_dialogues(hub, None, SplitSpec(test_share=0.2)).report.by_persona["general"]["test"] == 3


def test_the_largest_jaccard_is_the_one_that_brute_force_finds() -> None:
    rng = random.Random(2)

    def text() -> str:
        return "".join(rng.choices(LONG, k=rng.randint(20, 60)))

    for _ in range(20):
        train, test = [text() for _ in range(40)], [text() for _ in range(15)]
        near = list(rng.choice(train))
        for _ in range(rng.randint(0, 12)):
            near[rng.randrange(len(near))] = rng.choice(LONG)
        test.append("".join(near))
        largest = brute(train, test)
        found = largest_jaccard(pl.Series(train), pl.Series(test), 5)
        assert found == pytest.approx(largest if largest >= STEPS[-1] else 0.0)


def test_near_duplicates_are_found_at_the_threshold_and_short_texts_only_when_equal() -> None:
    texts = pl.Series([LONG, LONG + "！", LONG.replace("朋友", "家人"), "笑死", "笑死!", "笑死人", text_digest("x")])
    groups = near_duplicates(texts, 0.8, 20).group_by("group").agg(pl.col("row").sort())["row"]
    assert sorted(groups.to_list()) == [[0, 1], [0, 1, 2], [3, 4]]


def test_the_ledger_is_a_file_that_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "tables" / "split_ledger.parquet"
    assert read_ledger(path) is None
    result = split_dialogues(many(mentor=30), None, SPEC)
    write_ledger(result.ledger, path)
    kept = read_ledger(path)
    assert kept is not None and kept.equals(result.ledger)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_operators_file_wins(tmp_path: Path) -> None:
    (tmp_path / "split.yaml").write_text("test_share: 0.3\nby_author: true\n", encoding="utf-8")
    assert load_split(tmp_path) == SplitSpec(test_share=0.3, by_author=True)
    assert load_split(tmp_path / "none") == SplitSpec()
