"""Every row in exactly one bucket: on hostile files, on drawn ones, and on real rows."""

from __future__ import annotations

import gzip
import json
import os
import random
import zipfile
from collections import Counter
from functools import partial
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from persona_dagster.config.loading import PACKAGED
from persona_dagster.config.recipes import load_recipe
from persona_dagster.config.sources import load_sources
from persona_dagster.conversation.builders import build_dialogues
from persona_dagster.conversation.graph import reply_graph
from persona_dagster.conversation.mix import write_mix
from persona_dagster.conversation.safety import KINDS
from persona_dagster.corpus.clean import clean_posts
from persona_dagster.corpus.dedup import mark_duplicates
from persona_dagster.corpus.ledger import PAIRS, row_ledger
from persona_dagster.corpus.ledger_page import examples, stages, write_page
from persona_dagster.corpus.parsing import parse_board
from persona_dagster.corpus.quality import usable
from persona_dagster.corpus.tables import write_parquet
from persona_dagster.digest import author_key
from persona_dagster.intake.import_to_archive import places_of, write_lost
from persona_dagster.records import posts_frame
from persona_dagster_tests.conversation.made import Words
from persona_dagster_tests.conversation.test_builders import one
from persona_dagster_tests.intake.conftest import Home

SOURCES = ("ptt", "dcard", "threads", "chat")


def build(home: Home, config: Path) -> pl.DataFrame:
    """The corpus' steps without Dagster, and the ledger over what they wrote."""
    sources, frames = load_sources(config, "tiny"), []
    places = places_of(home.settings.intake_dir)
    for source in SOURCES:
        key = partial(author_key, b"secret", source)
        parsed = parse_board(home.archive.latest(source, "import"), key, places)  # type: ignore[arg-type]
        write_lost(parsed.lost, home.settings.intake_dir / "lost" / f"{source}.parquet")
        frames.append(clean_posts(posts_frame(parsed.posts), source, sources).frame)
    folder = home.settings.tables_dir / "posts"
    folder.mkdir(parents=True, exist_ok=True)
    mark_duplicates(pl.concat(frames)).frame.write_parquet(folder / "all.parquet")
    return row_ledger(home.settings)


def exact(home: Home, ledger: pl.DataFrame) -> None:
    """Each input row stands once; the buckets sum to the rows; nothing stands that did not come in."""
    brought = home.ledger()
    places = ["file", "row", "part"]
    assert ledger.select(places).is_duplicated().sum() == 0
    assert ledger.filter(pl.col("part") < 1000).height == brought.height
    assert ledger.select(places).join(brought.select(places), on=places, how="semi").height == brought.height
    assert sum(one["rows"] for one in stages(ledger)) == ledger.height
    assert ledger["bucket"].null_count() == 0 and ledger["stage"].null_count() == 0


POST = {"source": "ptt", "kind": "post", "board": "Hate", "text": "今天主管又把鍋甩給我，大家覺得我該怎麼辦才好"}
FLAT = (
    "作者somebody (暱稱)看板Hate標題[抱怨] 電梯時間Fri Jun 20 03:26:07 2025\n每天都有人按關門，真的很煩人\n"
    "※ 發信站: 批踢踢實業坊(ptt.cc), 來自: 203.0.113.7\n"
    "推 reader1: 笑死我了 06/20 03:40\n→ reader2: 真的假的 06/20 03:41"
)


def test_a_hostile_set_of_files(home: Home, tmp_path: Path) -> None:
    rows: list[object] = [POST | {"id": f"M.16000000{n:02d}.A.ABC", "text": f"{POST['text']}{n}"} for n in range(20)]
    rows += [
        rows[0],
        POST | {"board": "sex"},
        b"{broken",
        POST | {"kind": "poem"},
        {"source": "ptt", "kind": "post_flat", "text": FLAT},
    ]
    rows += [
        POST | {"id": "M.1600000000.A.ABC", "kind": "title", "text": "[抱怨] 標題"},
        POST | {"id": "M.1700000000.A.ABC", "text": "※ 發信站: 批踢踢實業坊(ptt.cc)\n"},
    ]
    home.put("a.jsonl", rows)
    home.put("b.jsonl.gz", rows[:5])
    home.put(
        "cut.jsonl.gz",
        gzip.compress(b"\n".join(json.dumps(POST | {"id": f"M.18000000{n:02d}.A.ABC"}).encode() for n in range(99)))[
            :-20
        ],
    )
    home.put("junk.bin", b"\x00\x01\x02" * 99)
    home.put("empty.csv", b"")
    home.put("README.txt", "see a.jsonl")
    with zipfile.ZipFile(home.settings.imports_dir / "z.zip", "w") as archive:
        archive.writestr("ptt_Hate.csv", "id,text\n1,一段話在這裡\n2,另一段話在這裡\n2,第三段話在這裡\n")
    (home.settings.imports_dir / "loop").symlink_to(home.settings.imports_dir)
    home.take_in()
    ledger = build(home, tmp_path)
    exact(home, ledger)
    buckets = Counter(ledger["bucket"].to_list())
    assert (
        buckets["repeat"] == 6 and buckets["denied_board"] == 1 and buckets["refused"] == 2 and buckets["replaced"] == 1
    )
    assert ledger.filter(bucket="cleaned_away")["why"].to_list() == ["ptt_station"]
    assert ledger.filter(pl.col("part") >= 1000).height == 2, "the pushes of the flat page are rows of their own"
    page = write_page(ledger, tmp_path / "funnel.html").read_text(encoding="utf-8")
    assert "ptt_station" in page and "主管" not in page


def test_who_has_a_partner_is_said_by_the_reply_graph(home: Home, tmp_path: Path) -> None:
    post = POST | {"source": "dcard", "id": "900000001"}
    comment = {"source": "dcard", "kind": "comment", "board": "Hate", "parent_id": post["id"], "author": "somebody"}
    answer = comment | {"id": "900000002", "floor": 1, "text": "先跟主管把話說清楚，再看要不要換工作"}
    lost = comment | {"id": "900000003", "floor": 9, "text": "B7 你說的那個辦法我試過，真的沒有什麼用"}
    alone = POST | {"source": "dcard", "id": "900000004", "text": "圖書館今天開到幾點，有人知道嗎"}
    home.put("a.jsonl", [post, answer, lost, alone])
    home.take_in()
    build(home, tmp_path)
    edges = reply_graph(pl.read_parquet(home.settings.tables_dir / "posts" / "all.parquet"))
    (home.settings.tables_dir / "reply_graph").mkdir()
    edges.write_parquet(home.settings.tables_dir / "reply_graph" / "all.parquet")
    ledger = row_ledger(home.settings)
    exact(home, ledger)
    found = dict(ledger.select("row", "bucket").iter_rows())
    assert found == {1: "not_built_yet", 2: "not_built_yet", 3: "no_partner", 4: "no_partner"}
    (one,) = (one for one in stages(ledger) if one["bucket"] == "no_partner")
    assert examples(ledger, one).select("file", "row").rows() == [("a.jsonl", 3), ("a.jsonl", 4)]


def test_what_kept_a_pair_from_a_dialogue_and_a_dialogue_from_the_mix(home: Home, tmp_path: Path) -> None:
    """Every condition of `build_dialogues`, and the recipe's bounds of length, through the real builder and mix."""
    answers = {
        "learnt": "抱抱你，先把飯吃好、把覺睡好，其他的慢慢來就好",
        "short": "抱抱",
        "unsafe": "抱抱，但是你去死一死好了，真的沒有人會想你的",
        "plain": "圖書館今天開到九點，假日只到五點而已喔",
        "long": "抱抱" + "你已經很努力了，" * 6,
    }
    rows: list[object] = []
    for number, (name, text) in enumerate(answers.items()):
        post = POST | {"source": "dcard", "id": f"90000000{number}", "text": f"{POST['text']}，這是第{name}件事"}
        rows += [post, post | {"kind": "comment", "id": f"91000000{number}", "parent_id": post["id"], "text": text}]
    sad = POST | {"source": "dcard", "id": "990000000", "text": "這個板沒有人格要學，今天天氣還不錯", "board": "stock"}
    rows += [
        sad,
        sad | {"kind": "comment", "id": "990000001", "parent_id": "990000000", "text": "抱抱你辛苦了喔喔喔喔"},
    ]
    home.put("a.jsonl", rows)
    home.take_in()
    build(home, tmp_path)
    tables = home.settings.tables_dir
    posts = pl.read_parquet(tables / "posts" / "all.parquet")
    feed = {"builder": "top_comments", "sources": ["dcard"], "boards": ["Hate"], "answer_chars": (8, 600)}
    personas, edges = one(feed), reply_graph(posts)
    built = build_dialogues(
        posts, personas, Words(tester="抱抱"), usable=usable(), edges=edges, unsafe=dict.fromkeys(KINDS, ("去死",))
    )
    write_parquet(edges, tables / "reply_graph" / "all.parquet")
    write_parquet(built.frame, tables / "dialogues" / "all.parquet")
    write_parquet(built.left_out, home.settings.intake_dir / PAIRS)

    def answered() -> dict[str, str]:
        ledger = row_ledger(home.settings)
        exact(home, ledger)
        return {name: ledger.filter(row=2 * at + 2)["bucket"].item() for at, name in enumerate([*answers, "stock"])}

    fates = {"short": "not_of_length", "unsafe": "unsafe", "plain": "no_voice", "stock": "no_feed"}
    assert answered() == fates | {"learnt": "not_built_yet", "long": "not_built_yet"}
    split = built.frame.select("pair_id", component=pl.lit("x"), split=pl.lit("train"))
    recipe = load_recipe("persona_v2", PACKAGED, "tiny", "cpu")
    mix = recipe.mix.model_copy(update={"answer_chars": (8, 40)})
    write_mix(
        built.frame, split, recipe.model_copy(update={"mix": mix}), personas, home.settings.mix_dir / "persona_v2"
    )
    assert answered() == fates | {"learnt": "train", "long": "not_of_length"}


VALUES = st.sampled_from([None, "", "1", "2", "M.1600000000.A.ABC", "推", "一段話在這裡", "哈", 3, True, [], {"a": 1}])
RECORDS = st.lists(
    st.fixed_dictionaries(
        {"source": st.sampled_from(["ptt", "dcard", "threads", "chat", "PTT", "mars"]), "text": VALUES},
        optional=dict.fromkeys(
            ("kind", "id", "parent_id", "board", "title", "author", "score", "tag", "floor"), VALUES
        ),
    ),
    min_size=1,
    max_size=25,
)


# Not shrunk: a second an example makes that minutes.
@settings(
    max_examples=200 if os.environ.get("PERSONA_SOAK") == "1" else 4,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(first=RECORDS, second=RECORDS)
def test_whatever_comes_in_is_accounted_for(
    first: list, second: list, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("drawn")
    home = Home(folder / "home")
    good = POST | {"id": "M.1600000009.A.ABC"}
    home.put("a.jsonl", [good, *first])
    home.put("b.jsonl", [good, *second])
    done = home.take_in()
    assert done.fates.total() == len(first) + len(second) + 2 and done.broken == 0, "no file is refused whole"
    exact(home, build(home, folder))


@pytest.mark.parametrize("rows", [1500, pytest.param(10**9, marks=pytest.mark.soak)])
def test_real_rows(shared_data: Path, home: Home, tmp_path: Path, rows: int) -> None:
    with gzip.open(shared_data / "corpus" / "forum_posts.jsonl.gz") as file:
        lines = [line.rstrip(b"\n") for line in file]
    random.Random(5).shuffle(lines)
    home.put("real.jsonl", lines[:rows])
    done = home.take_in()
    assert done.fates.total() == len(lines[:rows])
    exact(home, build(home, tmp_path))
