"""What the pages say in Traditional Chinese and in English: verdicts, gates, flaws, and the one sentence of reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Words(NamedTuple):
    """The same in both languages."""

    zh: str
    en: str


VERDICTS = {
    "green": Words("可以發布", "Ready"),
    "amber": Words("還不能下結論", "Undecided"),
    "red": Words("不能發布", "Not ready"),
}
MODELS = {
    "human": Words("真人", "People"),
    "base": Words("原模型", "Base"),
    "fewshot": Words("附範例", "Few-shot"),
    "adapter": Words("微調後", "Adapter"),
}
FAMILIES = {
    "clarity": "指定語氣聽起來有多清楚",
    "over_chance": "……比隨機一種語氣多多少",
    "voiced": "聽得出語氣的回答",
    "fidelity": "用指定的語氣回答",
    "shown": "……與附範例的原模型同題比較",
    "on_topic": "……標籤與主題一致",
    "routing": "……沒有指定，自己選對",
    "contradiction": "……標籤與主題衝突",
    "bertscore_f1": "BERTScore F1（原始值）",
    "loss": "真人測試回答的損失",
    "loss_char": "……每個字元的損失",
    "repetition": "回答內的重複",
}
KINDS = {
    "copied": Words("抄自訓練文字", "Copied"),
    "residue": Words("殘留", "Residue"),
    "broken": Words("空白、迴圈、截斷", "Broken"),
    "wrong voice": Words("語氣不對", "Wrong voice"),
    "farthest from the reference": Words("離參考回答最遠", "Farthest from the reference"),
}
MARKERS = {
    "length": Words("長度", "length"),
    "list_items": Words("條列", "list items"),
    "terms": Words("術語", "terms"),
    "second_person": Words("你、妳、您", "second person"),
    "hedging": Words("委婉", "hedging"),
    "exclamation": Words("驚嘆號", "exclamation"),
    "jeers": Words("嗆詞", "jeers"),
}
PILLS = {"green": Words("通過", "pass"), "amber": Words("未定", "unsure"), "red": Words("未過", "fail")}
WHY = {
    "the whole interval lies on the good side": Words("整個信賴區間都達標", "the whole interval lies on the good side"),
    "the whole interval lies on the bad side": Words("整個信賴區間都不達標", "the whole interval lies on the bad side"),
    "the interval holds the threshold": Words("信賴區間跨過門檻", "the interval holds the threshold"),
    "too few samples to judge": Words("樣本太少，或裁判尚未驗證", "too few samples, or a judge that is not confirmed"),
    "not measured": Words("沒有量測", "not measured"),
    "not a number: the adapter computes nonsense": Words("不是數字：模型算壞了", "not a number: the model is broken"),
}
GATES = {
    "min_coherent": Words("回答是通順的中文", "Its answers are language"),
    "min_words": Words("字都成詞（真人為 1）", "Its characters make words (people: 1)"),
    "min_relevance": Words("回答有對到問題（真人為 1）", "Its answers are about their questions (people: 1)"),
    "min_preference": Words("勝過附少量範例的原模型", "Its answers are preferred to its base's with examples"),
    "min_judge_accuracy": Words("語氣裁判可信", "The judge of voices can be believed"),
    "min_fidelity_gain": Words("比原模型更有指定的語氣", "Carries the asked voice more clearly than its base"),
    "min_voice_over_chance": Words("語氣跟著指定走，不是碰巧", "Its voice follows what is asked, beyond chance"),
    "min_tag_obedience": Words("標籤與主題衝突時仍聽標籤", "Obeys its tag even against the topic"),
    "min_loss_gain": Words("比原模型更能預測真人回答", "Finds human answers likelier than its base does"),
    "max_train_test_gap": Words("測試損失貼近訓練損失", "Test loss stays near train loss"),
    "min_train_loss": Words("訓練損失沒有低得可疑", "Train loss is not suspiciously low"),
    "max_verbatim": Words("不背誦訓練文字", "Does not recite the training text"),
    "max_residue": Words("沒有論壇殘留、標籤或個資", "No forum residue, tags or personal data"),
    "max_repetition": Words("不自我重複", "Does not repeat itself"),
    "max_broken": Words("回答完整", "Answers are whole"),
    "max_identical_openings": Words("開頭不會千篇一律", "Answers do not all begin alike"),
    "max_forgetting": Words("原模型知道的沒忘", "Still knows what the base knew"),
}
FLAWS = {
    "empty": Words("空白", "empty"),
    "looping": Words("鬼打牆", "looping"),
    "cut": Words("中途截斷", "cut off"),
    "not Chinese": Words("不是中文", "not Chinese"),
    "Simplified": Words("簡體字", "Simplified characters"),
    "broken characters": Words("亂碼或模板符號", "broken characters"),
    "both sides": Words("連問的人也一起演", "the asker's turn as well"),
    "no words": Words("字不成詞", "characters that make no words"),
    "echo": Words("照抄問題", "the question given back"),
    "said before": Words("同一句回答好幾題", "the same answer to several questions"),
    "patchwork": Words("訓練文字的碎片拼成", "pieced together from train answers"),
    "too short": Words("比真人的回答都短", "shorter than human answers"),
    "salad": Words("語言模型認為不成句", "word salad"),
    "too likely": Words("套話或迴圈", "a formula or a loop"),
    "out of order": Words("詞序打亂也沒差", "words in no order"),
}


ITERATION = {  # what stands at the side of the iteration page's table
    "Verdict": "結論",
    "gates": "門檻",
    "Training": "訓練",
    "base model": "原模型",
    "epochs": "訓練輪數",
    "optimiser steps": "更新步數",
    "training time": "訓練時間",
    "peak memory": "記憶體峰值",
    "power": "耗電",
    "Data quality": "資料品質",
    "text": "文字",
    "oversampling": "過取樣",
    "train rows": "訓練列數",
    "train answers with residue": "有殘留的訓練回答",
    "Loss, nats a token": "損失（每 token，nat）",
    "on train answers": "訓練回答",
    "on human test answers": "真人測試回答",
    "of the base, same answers": "原模型，同樣的回答",
    "test minus train": "測試減訓練",
    "train loss in the healthy band": "訓練損失是否在健康範圍",
    "Generation behaviour": "生成行為",
    "asked voice": "用了指定的語氣",
    "how clear it is": "……有多清楚",
    "… more than by the base": "……比原模型多",
    "… more than a voice at random": "……比隨機一種語氣多",
    "voice chosen untold": "沒有指定，自己選對",
    "tag against topic": "標籤與主題衝突",
    "BERTScore F1, raw": "BERTScore F1（原始值）",
    "repetition (rep-4)": "重複（rep-4）",
    "empty, looping, cut": "空白、迴圈、截斷",
    "residue in raw answers": "原始輸出的殘留",
    "copied from train, over chance": "抄自訓練文字（扣除巧合）",
    "knowledge lost": "忘掉的知識",
    "The voices were judged by different judges: compare the gains over the base, not the shares.": (
        "各版本的語氣由不同的裁判判定：請比較相對原模型的增幅，不要比較比例。"
    ),
    "The runs have different test sets: their losses and scores do not compare.": (
        "各版本的測試集不同：損失與分數不能互相比較。"
    ),
    "The runs have different base models: their losses do not compare.": "各版本的原模型不同：損失不能互相比較。",
}
CELLS = {  # words within its cells
    **{both.en: both.zh for both in VERDICTS.values()},
    **{"no card": "沒有顯示卡", "inside ": "在範圍內 ", "below ": "低於 ", "above ": "高於 ", " to ": " 至 "},
    **{" mean": " 平均", ": fails ": "，未過："},
}


def cell_in_chinese(text: str) -> str:
    for english, chinese in CELLS.items():
        text = text.replace(english, chinese)
    return text


def reason(metrics: Mapping[str, Any]) -> Words:
    """Why the verdict is what it is, in one sentence: the first failed gate in the order of GATES, what was measured
    and wanted; else the first that is unsure."""
    gates = {gate["name"]: gate for gate in metrics["gates"]}
    for colour, zh, en in (("red", "未過", "fail"), ("amber", "未定", "are unsure")):
        found = [gates[name] for name in GATES if name in gates and gates[name]["verdict"] == colour]
        if not found:
            continue
        first, title = found[0], GATES[found[0]["name"]]
        flaw = FLAWS.get((metrics["detail"].get("coherence") or {}).get("commonest") or "")
        more = flaw if first["name"] == "min_coherent" and flaw else None
        value = "–" if first["value"] is None else f"{first['value']:.2f}"
        low, high = first.get("low"), first.get("high")
        span = None if low is None or high is None else (f"{low:.2f}", f"{high:.2f}")
        wanted = f"{first['threshold']:.2f}"
        bound = {"at least": ("至少", "at least"), "at most": ("至多", "at most"), "above": ("高於", "above")}[
            first["bound"]
        ]
        said = "fails" if colour == "red" else "is unsure"
        inside = Words(f"（{' 至 '.join(span)}）", f" ({' to '.join(span)})") if span else Words("", "")
        chinese = f"「{title.zh}」{zh}：量到 {value}{inside.zh}，需要{bound[0]} {wanted}"
        english = f"“{title.en}” {said}: {value}{inside.en}, wanted {bound[1]} {wanted}"
        if more:
            chinese, english = f"{chinese}（最常見：{more.zh}）", f"{english} (mostly {more.en})"
        if others := len(found) - 1:
            chinese, english = f"{chinese}；另有 {others} 項{zh}", f"{english}; {others} more {en}"
        return Words(f"{chinese}。", f"{english}.")
    return Words(f"{len(gates)} 項門檻全部通過。", f"All {len(gates)} gates hold.")
