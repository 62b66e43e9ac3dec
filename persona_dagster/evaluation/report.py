"""The report: one self-contained HTML page a recipe, verdict first.

Scraped and generated text is escaped by Jinja2's autoescape; the page loads nothing (its own CSP forbids it) and
runs no script. Charts are HTML and SVG drawn here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import polars as pl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from persona_dagster.config.personas import Personas
from persona_dagster.corpus.html_page import style
from persona_dagster.digest import text_digest
from persona_dagster.evaluation import report_texts
from persona_dagster.evaluation.job_spec import EvaluateJob
from persona_dagster.evaluation.prompts import SHOTS
from persona_dagster.evaluation.report_texts import Words

TEMPLATES = Path(__file__).parent / "templates"
WORDS = {colour: both.en for colour, both in report_texts.VERDICTS.items()}
SAMPLES = 6  # a persona
SHOWN = 3  # a persona, above the fold
# Gates judge voice, loss, copying and residue; that a small model makes no sense, a reader sees at once.
PRACTICE = Words(
    "套件附的原模型有 2.7 億參數，在 CPU 上只訓練幾分鐘：會用完整的句子與語氣回答，但懂得不多。它示範每一步；"
    "要發布，請訓練任務所說大小的模型。",
    "The base that a package brings has 270 million parameters and was trained for minutes on a CPU: it answers in "
    "whole sentences and voices, and knows little. It shows every step at work; release a model of the mission's own "
    "size.",
)
COLLAPSE_ROWS = [
    ("distinct_1", Words("distinct-1", "distinct-1"), "plain"),
    ("distinct_2", Words("distinct-2", "distinct-2"), "plain"),
    ("self_bleu", Words("self-BLEU（0–100）", "self-BLEU (0–100)"), "one"),
    ("identical_openings", Words("開頭雷同", "begin alike"), "percent"),
    ("answers", Words("回答數", "answers"), "whole"),
    ("mean_tokens", Words("平均長度，token", "mean length, tokens"), "one"),
    ("at_limit", Words("碰到長度上限", "ran into the limit"), "percent"),
]
MINUS = "\N{MINUS SIGN}"


def environment() -> Environment:
    """Jinja2 with escaping on, and the filters of both reports."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(figure=figure, share=share, marked=marked)
    return made


def css() -> Markup:
    """The style of all pages, and of reports."""
    return Markup(style() + (TEMPLATES / "report.css").read_text(encoding="utf-8"))


def figure(value: float | None, form: str = "plain") -> str:
    """A number for people: plain (3 places), one (1 place), whole, percent, signed; a dash for None."""
    if value is None:
        return "–"
    if form == "percent":
        text = f"{100 * value:.0f} %"
    elif form in ("one", "whole"):
        text = f"{value:.{int(form == 'one')}f}"
    else:
        text = f"{value:+.3f}" if form == "signed" else f"{value:.3f}"
        text = text.rstrip("0").rstrip(".") if form == "plain" and "." in text else text
    return text.replace("-", MINUS)


def share(value: float | None, top: float) -> float:
    """Percent of `top`, within 0-100."""
    return round(min(max(100 * (value or 0) / top, 0), 100), 2) if top else 0.0


def marked(text: str, part: str | None) -> Markup:
    """`text` escaped, with its copied part marked."""
    if not part or part not in text:
        return escape(text)
    before, after = text.split(part, 1)
    return Markup("{}<mark>{}</mark>{}").format(before, part, after)


def write_report(
    path: Path,
    metrics: dict[str, Any],
    rows: pl.DataFrame,
    worst: dict[str, Sequence[dict[str, Any]]],
    job: EvaluateJob,
) -> None:
    """Renders `metrics` and the answers into `path`."""
    origins = read_origins(job.mix_dir / "provenance.parquet")
    for cases in worst.values():
        for case in cases:
            named = case["copied_rows"] or ([case["prompt_id"]] if case["prompt_id"] in origins else [])
            case["lineage"] = [{"row_id": row_id, "docs": origins.get(row_id, [])} for row_id in named]
    page = environment().get_template("report.html.j2")
    text = page.render(
        m=metrics,
        d=metrics["detail"],
        i=metrics["intervals"],
        css=css(),
        verdicts=report_texts.VERDICTS,
        pills=report_texts.PILLS,
        whys=report_texts.WHY,
        gate_words=report_texts.GATES,
        flaw_words=report_texts.FLAWS,
        gates=sorted(metrics["gates"], key=lambda gate: ("red", "amber", "green").index(gate["verdict"])),
        reason=report_texts.Words(metrics["reason_zh"], metrics["reason"]),
        shown=shown(rows, job.personas),
        names=report_texts.MODELS,
        shots=SHOTS,
        summary=summary(metrics),
        families=families(metrics),
        collapse_rows=COLLAPSE_ROWS,
        marker_words=report_texts.MARKERS,
        kind_words=report_texts.KINDS,
        personas={key: {"color": persona.color} for key, persona in job.personas.personas.items()},
        sampled=sampled(rows, job),
        worst=worst,
        curve=curve(job),
        method=method(metrics),
    )
    path.write_text(text, encoding="utf-8")


def summary(metrics: dict[str, Any]) -> list[Words]:
    """What was found, in two or three sentences of numbers."""
    i, sentences = metrics["intervals"], []
    voiced = bool(metrics["detail"]["voices"]) and i["fidelity_adapter"]["value"] is not None
    if voiced:
        gain = i["clarity_gain"]
        ours, theirs = (figure(i[f"fidelity_{model}"]["value"], "percent") for model in ("adapter", "base"))
        chance, base_chance = (figure(100 * i[f"over_chance_{model}"]["value"], "one") for model in ("adapter", "base"))
        points = figure(100 * abs(gain["value"]), "one")
        low, high = (figure(100 * gain[end], "one") for end in ("low", "high")) if gain["enough"] else ("", "")
        zh = f"（95 % 信賴區間 {low} 到 {high}）" if low else ""
        en = f" (95 % interval {low} to {high})" if low else ""
        more = Words("多", "more") if gain["value"] >= 0 else Words("少", "less")
        sentences.append(
            Words(
                f"有 {ours} 用指定的語氣回答，原模型 {theirs}；語氣清楚程度{more.zh} {points} 個百分點{zh}。"
                f"比隨機一種語氣高 {chance} 個百分點，原模型 {base_chance}。",
                f"It answers in the asked voice {ours} of the time, its base {theirs}; it carries that voice {points} "
                f"points {more.en} clearly{en}. Over a voice drawn at random it has {chance} points, its base "
                f"{base_chance}.",
            )
        )
    if i["loss_adapter"]["value"] is not None:
        ours, theirs, learnt = (figure(i[f"loss_{name}"]["value"]) for name in ("adapter", "base", "train"))
        own, base = (figure(i[f"loss_char_{name}"]["value"]) for name in ("adapter", "base"))
        sentences.append(
            Words(
                f"真人測試回答每個 token 的損失是 {ours}，原模型 {theirs}（每個字元 {own} 與 {base}）；"
                f"自己的訓練回答 {learnt}。",
                f"Human test answers cost it {ours} nats a token, its base {theirs} ({own} and {base} a character); "
                f"its own train answers {learnt}.",
            )
        )
    if failed := [report_texts.GATES[gate["name"]] for gate in metrics["gates"] if gate["verdict"] == "red"]:
        chinese, english = "；".join(one.zh for one in failed), "; ".join(one.en.lower() for one in failed)
        sentences.append(Words(f"未過：{chinese}。", f"Failed: {english}."))
    if voiced and "parts" in metrics["settings"]["base"].get("entry", {}).get("source", {}):
        sentences.append(PRACTICE)
    return sentences


def families(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """The bar groups of the comparison: all that base and adapter share."""
    i, detail = metrics["intervals"], metrics["detail"]
    voices = bool(detail["voices"])
    wanted = [
        (
            "clarity",
            "How clear the asked voice is",
            Words("裁判給它的平均機率", "the judge's mean probability for it"),
            "percent",
            voices,
        ),
        (
            "over_chance",
            "… more than a voice drawn at random",
            Words("全用同一種或隨便一種語氣是 0", "0 for one voice, or any, for all"),
            "percent",
            voices,
        ),
        (
            "voiced",
            "Enough Chinese to judge a voice",
            Words("中文夠多、聽得出語氣的回答", "answers with enough Chinese to hear one in"),
            "percent",
            voices,
        ),
        (
            "fidelity",
            "Answers in the asked voice",
            Words("所有指定語氣的題目", "all prompts that ask for one"),
            "percent",
            voices,
        ),
        (
            "shown",
            "… beside few-shot",
            Words("也問過附範例模型的測試題", "the test rows that few-shot was asked too"),
            "percent",
            voices,
        ),
        (
            "on_topic",
            "… asked by tag and topic",
            Words("測試題與人格自己的題目", "test rows and personas' own probes"),
            "percent",
            voices,
        ),
        ("routing", "… chosen untold", Words("沒有標籤的題目", "untagged prompts"), "percent", voices),
        (
            "contradiction",
            "… by the tag against the topic",
            Words("標籤與主題衝突的題目", "contradicting prompts"),
            "percent",
            voices,
        ),
        ("bertscore_f1", "BERTScore F1, raw", _encoder_note(detail), "plain", True),
        ("loss", "Loss on human test answers", _loss_note(detail, i["loss_gain"]), "plain", True),
        (
            "loss_char",
            "… in nats a character",
            Words("不同 tokenizer 也能比，越低越好", "compares over tokenizers; lower is better"),
            "plain",
            True,
        ),
        (
            "repetition",
            "Repetition within an answer",
            Words("rep-4，越低越好", "rep-4, lower is better"),
            "percent",
            True,
        ),
    ]
    made = []
    for name, title, note, form, there in wanted:
        if not there:
            continue
        rows = [
            {"name": report_texts.MODELS[model], "kind": model, "interval": i[f"{name}_{model}"]}
            for model in ("human", "base", "fewshot", "adapter")
            # Few-shot answers some test rows only: its bar stands where all answer those.
            if (model != "fewshot" or name == "shown") and i.get(f"{name}_{model}", {}).get("value") is not None
        ]
        if not rows:
            continue
        top = (
            1.0 if form == "percent" else 1.1 * max(row["interval"]["high"] or row["interval"]["value"] for row in rows)
        )
        gain = i.get(f"{name}_gain")
        gain_name = {
            "loss": Words("原模型減微調後", "Base minus adapter"),
            "loss_char": Words("原模型減微調後", "Base minus adapter"),
            "shown": Words("微調後減附範例", "Adapter minus few-shot"),
        }.get(name, Words("微調後減原模型", "Adapter minus base"))
        made.append(
            {
                "title": report_texts.Words(report_texts.FAMILIES[name], title),
                "note": note,
                "form": form,
                "rows": rows,
                "top": top,
                "gain": gain,
                "gain_name": gain_name,
            }
        )
    return made


def _loss_note(detail: dict[str, Any], gain: dict[str, Any]) -> Words:
    base, ours = (figure(detail["perplexity"][model], "one") for model in ("base", "adapter"))
    times = [figure(math.exp(-gain[end])) for end in ("value", "high", "low")] if gain["enough"] else []
    zh = f"（{times[0]} 倍，95 % 信賴區間 {times[1]} 到 {times[2]}）" if times else ""
    en = f" (times {times[0]}, 95 % interval {times[1]} to {times[2]})" if times else ""
    return Words(
        f"每個 token 的 nats，越低越好；回答照訓練時的長度截斷；困惑度：原模型 {base}，微調後 {ours}{zh}",
        "nats a token, lower is better; answers as they are cut for training; perplexity: "
        f"base {base}, adapter {ours}{en}",
    )


def _encoder_note(detail: dict[str, Any]) -> Words:
    score = detail["bertscore"]
    scaled = {report_texts.MODELS[model]: figure(table["rescaled"]["F"]) for model, table in score["models"].items()}
    chinese = "，".join(f"{name.zh} {value}" for name, value in scaled.items())
    english = ", ".join(f"{name.en.lower()} {value}" for name, value in scaled.items())
    baseline, layer, encoder = figure(score["baseline"]["values"][2]), score["layer"], score["encoder"]
    return Words(
        f"{encoder} 第 {layer} 層；不相干的配對得 {baseline}；重新縮放：{chinese}；{score['check']}",
        f"{encoder}, layer {layer}; unrelated pairs score {baseline}; rescaled: {english}; {score['check']}",
    )


def read_origins(path: Path) -> dict[str, list[dict[str, str | None]]]:
    """Documents by row_id, with a link where the address is http(s)."""
    if not path.is_file():
        return {}
    frame = pl.read_parquet(path, columns=["row_id", "doc_ids", "urls"])
    origins = {}
    for row_id, docs, urls in frame.rows():
        links = list(urls or []) + [None] * len(docs or [])
        origins[row_id] = [{"doc_id": doc, "url": _safe(url)} for doc, url in zip(docs or [], links, strict=False)]
    return origins


def _safe(url: str | None) -> str | None:
    try:
        return url if url and urlsplit(url).scheme in ("http", "https") else None
    except ValueError:  # an imported address may be anything
        return None


def sampled(rows: pl.DataFrame, job: EvaluateJob) -> list[dict[str, Any]]:
    """Per persona: the first prompts with the answers of base and adapter beside each other."""
    keys = ["suite", "prompt_id"]
    wide = rows.filter(pl.col("suite").is_in(["test", "routing", "contradiction", "probe"]))
    base = wide.filter(pl.col("model") == "base").select(
        *keys,
        pl.col("answer").alias("base"),
        pl.col("judged").alias("base_judged"),
        pl.col("flaw").alias("base_flaw"),
    )
    ours = wide.filter(pl.col("model") == "adapter").rename(
        {"answer": "adapter", "judged": "adapter_judged", "flaw": "adapter_flaw"}
    )
    both = ours.join(base, on=keys, how="inner", maintain_order="left")
    groups = []
    for asked in both["asked"].unique(maintain_order=True).to_list():
        part = both.filter(pl.col("asked") == asked)
        # Two of each suite, so that a page shows tagged, untagged and contradicting prompts.
        picked = part.with_columns(turn=pl.int_range(pl.len()).over("suite")).sort("turn", maintain_order=True)
        persona = job.personas.personas.get(asked)
        groups.append({"tag": persona.tag if persona else asked, "samples": picked.head(SAMPLES).to_dicts()})
    return groups


def shown(rows: pl.DataFrame, personas: Personas) -> list[dict[str, Any]]:
    """Above the fold: the first `SHOWN` prompts of each persona by hash, whatever they look like."""
    groups: list[dict[str, Any]] = []
    for key, persona in personas.personas.items():
        part = rows.filter((pl.col("asked") == key) & pl.col("suite").is_in(["test", "routing", "probe"]))
        base = part.filter(pl.col("model") == "base").select("suite", "prompt_id", base="answer")
        ours = part.filter(pl.col("model") == "adapter").join(base, on=["suite", "prompt_id"], how="left")
        answered = ours.rename({"answer": "adapter", "flaw": "adapter_flaw"}).to_dicts()
        answered.sort(key=lambda row: text_digest(row["suite"], row["prompt_id"]))
        if answered:
            groups.append({"tag": persona.tag, "color": persona.color, "samples": answered[:SHOWN]})
    return groups


def losses(job: EvaluateJob) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """(step, loss) of training and of validation, from the log beside the adapter; none without it."""
    path = job.adapter_dir / "training_log.jsonl" if job.adapter_dir else None
    if path is None or not path.is_file():
        return [], []
    log = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    points = {
        kind: [(line["step"], line["loss"]) for line in log if line.get("kind") == kind] for kind in ("train", "eval")
    }
    return points["train"], points["eval"]


def curve(job: EvaluateJob) -> dict[str, Any] | None:
    """The training curves as SVG, from training_log.jsonl beside the adapter; None without them."""
    train, held = losses(job)
    if len(train) < 2:
        return None
    band = job.recipe.healthy_loss.get(job.recipe.base.model)
    caption = Words(
        f"{train[-1][0]} 步的損失，每個 token 的 nats。", f"Nats a token over {train[-1][0]} optimiser steps."
    )
    if held:
        step, low = min(held, key=lambda point: point[1])
        end = held[-1][1]
        caption = Words(
            f"{caption.zh}驗證損失在第 {step} 步最低（{low:.2f}），結束時 {end:.2f}。",
            f"{caption.en} Validation loss is lowest at step {step} ({low:.2f}) and ends at {end:.2f}.",
        )
    return {"svg": loss_svg(train, held, band), "band": band, "caption": caption}


def loss_svg(train: list[tuple[int, float]], held: list[tuple[int, float]], band: tuple[float, float] | None) -> Markup:
    """Two lines over steps, in the page's own colours; numbers only, so nothing needs escaping."""
    width, height, left, bottom = 960, 300, 46, 28
    last = max(step for step, _ in train + held) or 1
    top = 1.05 * max(value for _, value in train + held)

    def x(step: float) -> float:
        return round(left + (width - left - 12) * step / last, 1)

    def y(value: float) -> float:
        return round(10 + (height - bottom - 10) * (1 - value / top), 1)

    parts = [f'<svg class="curve" viewBox="0 0 {width} {height}" role="img" aria-label="Training curves">']
    if band:
        high, low = y(min(band[1], top)), y(min(band[0], top))
        parts.append(
            f'<rect x="{left}" y="{high}" width="{width - left - 12}" height="{low - high}" fill="var(--green-wash)"/>'
        )
    step = 0.5 if top <= 3 else 1.0
    tick = 0.0
    while tick <= top:
        parts.append(f'<line x1="{left}" x2="{width - 12}" y1="{y(tick)}" y2="{y(tick)}" stroke="var(--line)"/>')
        parts.append(
            f'<text x="{left - 8}" y="{y(tick) + 4}" text-anchor="end" font-size="12" fill="var(--soft)">'
            f"{tick:g}</text>"
        )
        tick += step
    for mark in range(5):
        at = last * mark / 4
        parts.append(
            f'<text x="{x(at)}" y="{height - 8}" text-anchor="middle" font-size="12" fill="var(--soft)">{at:.0f}</text>'
        )
    for points, color, thick in ((train, "var(--base)", 1.5), (held, "var(--adapter)", 2.5)):
        line = " ".join(f"{x(step)},{y(value)}" for step, value in points)
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="{thick}" stroke-linejoin="round"/>'
        )
    parts += [f'<circle cx="{x(step)}" cy="{y(value)}" r="4" fill="var(--adapter)"/>' for step, value in held]
    return Markup("".join(parts) + "</svg>")


def _sampled(settings: dict[str, Any]) -> str:
    """How the answers came about."""
    if file := settings.get("handed_in"):
        return f"handed in as {file}; how they were made is not known here"
    sampling = settings["sampling"]
    greedy = (
        "greedy" if not sampling["temperature"] else f"temperature {sampling['temperature']}, top-p {sampling['top_p']}"
    )
    return (
        f"{greedy}, repetition penalty {sampling['repetition_penalty']}, at most {sampling['max_new_tokens']} new "
        f"tokens, seed {sampling['seed']}, {settings['seconds']:.0f} s"
    )


def method(metrics: dict[str, Any]) -> list[tuple[Words, str]]:
    """What one must know to believe or repeat the numbers."""
    detail, settings = metrics["detail"], metrics["settings"]
    score = metrics["detail"]["bertscore"]
    rows = [
        (Words("原模型", "Base model"), f"{settings['base']['model']}, {settings['dtype']} for inference"),
        (Words("生成", "Generation"), _sampled(settings)),
        (Words("測試集", "Test set"), f"{metrics['test']['rows']} rows, digest {metrics['test']['digest']}"),
        (
            Words("BERTScore", "BERTScore"),
            f"{score['encoder']}, layer {score['layer']}, weights sha256 {score['sha256'][:16]}…, baseline "
            f"{figure(score['baseline']['values'][2])} from {score['baseline']['pairs']} pairs "
            f"({score['baseline']['source']})",
        ),
        (
            Words("信賴區間", "Intervals"),
            "95 %, percentile bootstrap over distinct prompts, 2,000 rounds, and a jackknife for distinct-n; under 8 "
            "prompts nothing is judged",
        ),
    ]
    if detail["voices"]:
        written = "learnt from answers written for a voice, the same for all recipes"
        shared = (
            written if metrics["shared_judge"] else "learnt from this recipe's own train rows, so its gate is amber"
        )
        judge = detail["judge"]
        rows.append(
            (
                Words("語氣裁判", "Voice judge"),
                f"sentence vectors, and character 1–3-grams without topic words; logistic regression; {shared}; "
                f"{judge['digest']}",
            )
        )
    if run := metrics.get("run"):
        units = {"steps": "steps", "seconds": "s", "peak_memory_gib": "GiB at peak", "energy_wh": "Wh"}
        facts = [f"{run[key]} {unit}" for key, unit in units.items() if run.get(key)]
        rows.append((Words("訓練", "Training run"), ", ".join(facts)))
    rows.append((Words("回答版本", "Generations"), metrics["generations"]))
    return rows
