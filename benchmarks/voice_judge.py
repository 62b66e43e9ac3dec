"""How often the sample's judge of voices is right: on written answers kept from it, and on real labelled ones.

    python benchmarks/voice_judge.py [LABELS_FOLDER FORUM_POSTS_JSONL_GZ]

Five folds over the sample's questions, answers of the length that its recipes learn and cut as they are judged there;
then, where a folder of labels is given, the judge of all of them on the answers of fit 2. Both also behind the opening
of another voice.
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from persona_dagster.config.recipes import load_recipe
from persona_dagster.digest import text_digest
from persona_dagster.evaluation.bertscore import Scorer
from persona_dagster.evaluation.bootstrap import mean_interval
from persona_dagster.evaluation.evaluate import judge_rows
from persona_dagster.evaluation.fidelity import disguised, train_judge
from persona_dagster.evaluation.prompts import MixRow
from persona_dagster.models.encoder import load_encoder
from persona_dagster.sample.voice_examples import written_answers

VOICES = ["assistant", "mentor", "mouthpiece"]
Rows = list[tuple[str, str, str]]  # voice, question, answer


def labelled(folder: Path, posts: Path) -> Rows:
    """The answers of fit 2 in the project's own labels."""
    kept = [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.open(encoding="utf-8")]
    kept = [one for one in kept if one["fit"] == 2]
    wanted = {one[name] for one in kept for name in ("line", "post_line")}
    with gzip.open(posts, "rt", encoding="utf-8") as file:
        text = {place: json.loads(line)["text"] for place, line in enumerate(file) if place in wanted}
    return [(one["voice"], text[one["post_line"]], text[one["line"]]) for one in kept]


def as_row(voice: str, question: str, answer: str) -> MixRow:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return MixRow(text_digest(voice, question, answer), voice, turns)


def shown(name: str, right: list[bool], questions: list[str]) -> None:
    found = mean_interval([float(one) for one in right], groups=questions)
    print(f"{name}: {found.value:.3f} ({found.low:.3f} to {found.high:.3f}), {len(right)} answers", flush=True)


def main(arguments: list[str]) -> None:
    models = Path(tempfile.gettempdir()) / "voice-judge-models"
    recipe = load_recipe("persona_v2", models, "sample", "cpu")
    chars, hears = recipe.mix.answer_chars, recipe.evaluation.max_new_tokens // 2
    assert chars is not None
    scorer = Scorer(load_encoder(recipe.evaluation.encoder, models))
    whole = [as_row(*one) for one in written_answers()]
    alike = [row for row in whole if chars[0] <= len(row.answer) <= chars[1]]
    right: dict[str, list[tuple[bool, str, str]]] = {"written": [], "written, disguised": []}
    for fold in range(5):
        held = [row for row in alike if int(text_digest(row.question)[:6], 16) % 5 == fold]
        questions = {row.question for row in held}
        learned = judge_rows(None, [row for row in whole if row.question not in questions], chars)
        judge = train_judge(learned, VOICES, scorer.sentences, hears)
        assert judge is not None
        rows: Rows = [(row.persona, row.question, row.answer) for row in held]
        for name, some in (("written", rows), ("written, disguised", disguised(rows))):
            heard = judge.hear([row[2] for row in some], [row[1] for row in some])
            right[name] += [(one == row[0], row[1], row[0]) for one, row in zip(heard, some, strict=True)]
    for name, found in right.items():
        shown(name, [one[0] for one in found], [one[1] for one in found])
        for voice in VOICES:
            print(f"  {voice}: {np.mean([ok for ok, _, of in found if of == voice]):.3f}")
    if len(arguments) == 2:
        judge = train_judge(judge_rows(None, whole, chars), VOICES, scorer.sentences, hears)
        assert judge is not None
        rows = labelled(*map(Path, arguments))
        for name, some in (("labelled", rows), ("labelled, disguised", disguised(rows))):
            heard = judge.hear([row[2] for row in some], [row[1] for row in some])
            shown(name, [one == row[0] for one, row in zip(heard, some, strict=True)], [row[1] for row in some])


if __name__ == "__main__":
    main(sys.argv[1:])
