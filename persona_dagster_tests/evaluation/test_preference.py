"""Pairs, votes, kappa, and a judge behind an endpoint (a real HTTP server that answers by rule)."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import polars as pl
import pytest
from sklearn.metrics import cohen_kappa_score

from persona_dagster.evaluation.blind_voting_page import Ballot
from persona_dagster.evaluation.llm_judge import EndpointError, ask_model
from persona_dagster.evaluation.preference import agreement, kappa, make_pairs, preferred, read_votes, trusted
from persona_dagster.records import GENERATION_SCHEMA


def generations(count: int = 40) -> pl.DataFrame:
    rows = [
        {
            "prompt_id": f"p{place}", "suite": "test", "model": model, "asked": "mentor", "tagged": True,
            "messages": [{"role": "user", "content": f"問題{place}"}], "reference": None,
            "answer": f"{'好' if model == 'adapter' else '壞'}的回答{place}", "finish": "stop", "new_tokens": 5,
        }
        for place in range(count)
        for model in ("adapter", "fewshot", "base")
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=GENERATION_SCHEMA)


def test_kappa_is_sklearns_and_its_interval_holds_it() -> None:
    rng = random.Random(1)
    first = [rng.choice("abt") for _ in range(220)]
    second = [one if rng.random() < 0.7 else rng.choice("abt") for one in first]
    found = kappa(first, second)
    assert found.value == pytest.approx(cohen_kappa_score(first, second))
    assert found.low is not None and found.high is not None and found.value is not None
    assert found.low < found.value < found.high
    assert trusted(found) and not trusted(kappa(first[:150], second[:150]))
    assert not trusted(kappa(first, [rng.choice("abt") for _ in first]))


def test_pairs_are_blind_and_the_same_for_everybody() -> None:
    pairs = make_pairs(generations())
    assert pairs == make_pairs(generations().sample(fraction=1, shuffle=True, seed=3))
    assert {pair.left for pair in pairs} == {"adapter", "fewshot"}
    assert all(pair.left != pair.right for pair in pairs) and len(pairs) == 40


def test_a_vote_is_a_line_of_ids_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "votes" / "persona_v2.jsonl"
    pairs = make_pairs(generations())
    ballot = Ballot(pairs, path, "persona_v2", "digest", "ann")
    for _ in range(3):
        ballot.vote("left")
    ballot.vote("right", seen=pairs[0].pair_id)  # pressed twice: that pair has its vote already
    assert len(Ballot(pairs, path, "persona_v2", "digest", "ann").waiting) == 37
    assert len(Ballot(pairs, path, "persona_v2", "digest", "bob").waiting) == 40
    assert "回答" not in path.read_text(encoding="utf-8")
    votes = read_votes([path])
    assert votes["pair_id"].to_list() and set(votes["generations"]) == {"digest"}


def rows(scores: dict[str, tuple[float, str | None]]) -> pl.DataFrame:
    made = [
        {"suite": "test", "prompt_id": f"p{place}", "question": f"q{place}", "model": model, "clarity": clarity,
         "relevance": 0.8, "flaw": flaw}
        for place in range(10)
        for model, (clarity, flaw) in scores.items()
    ]  # fmt: skip
    return pl.DataFrame(made, schema_overrides={"flaw": pl.String})


def test_the_local_judge_prefers_voice_in_answers_without_a_flaw() -> None:
    better = preferred(rows({"adapter": (0.9, None), "fewshot": (0.2, None)}))
    assert better["preferred"].to_list() == [1.0] * 10
    flawed = preferred(rows({"adapter": (0.9, "salad"), "fewshot": (0.2, None)}))
    assert flawed["preferred"].to_list() == [0.0] * 10
    assert preferred(rows({"adapter": (0.5, None), "fewshot": (0.5, None)}))["preferred"].to_list() == [0.5] * 10


def test_agreement_counts_people_alone_and_on_these_very_answers(tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    pairs = make_pairs(generations())
    for name in ("ann", "llm:some"):
        ballot = Ballot(pairs, path, "r", "g", name)
        while (pair := ballot.pair) is not None:
            ballot.vote("left" if pair.left == "adapter" else "right")
    ours = pl.when(pl.col("model") == "adapter").then(0.9).otherwise(0.1)
    scored = generations().with_columns(clarity=ours, relevance=0.8, flaw=pl.lit(None, dtype=pl.String))
    found = agreement(read_votes([path]), scored)
    assert found.value == 1.0 and found.n == 40
    other = agreement(read_votes([path]), scored.with_columns(clarity=1 - ours))
    assert other.value is not None and other.value < -0.8
    assert agreement(read_votes([path]), scored.with_columns(answer=pl.col("answer") + "。")).n == 0


class Endpoint(BaseHTTPRequestHandler):
    """Prefers the answer that holds 好; `stubborn` always says A."""

    stubborn = False

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][0]["content"]
        left = text.split("回答 A：")[1].split("回答 B：")[0]
        said = "A" if self.stubborn or "好" in left else "B"
        value = {"choices": [{"message": {"content": said}}], "usage": {"prompt_tokens": 90, "completion_tokens": 1}}
        data = json.dumps(value if self.path == "/v1/chat/completions" else {}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    Endpoint.stubborn = False


def test_a_model_is_asked_in_both_orders(endpoint: str) -> None:
    pairs = make_pairs(generations(6))
    asked = ask_model(pairs, endpoint, "judge")
    assert [getattr(pair, vote) for pair, vote in zip(pairs, asked.votes, strict=True)] == ["adapter"] * 6
    assert asked.consistency == 1.0 and asked.record["prompt_tokens"] == 6 * 2 * 90
    Endpoint.stubborn = True
    partial = ask_model(pairs, endpoint, "judge")
    assert partial.votes == ["tie"] * 6 and partial.consistency == 0.0
    with pytest.raises(EndpointError, match="no judgement"):
        ask_model(pairs, endpoint.removesuffix("/v1"), "judge")
