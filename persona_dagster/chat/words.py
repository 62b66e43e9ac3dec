"""What the chat says in its own voice, in Traditional Chinese and in English."""

from __future__ import annotations

from typing import Literal

Language = Literal["zh", "en"]

WORDS: dict[str, tuple[str, str]] = {
    "title": ("PersonaLlama 聊天室", "PersonaLlama chat"),
    "subtitle": (
        "三種聲音，一組權重：助教、導師、嘴替",
        "Three voices, one set of weights: assistant, mentor, mouthpiece",
    ),
    "persona": ("誰來回答", "Who answers"),
    "auto": ("自動", "Auto"),
    "model": ("模型自己選", "Model's own choice"),
    "ask": ("說點什麼，例如：我好像失戀了", "Say something, for example: 我好像失戀了"),
    "send": ("送出", "Send"),
    "stop": ("停止", "Stop"),
    "retry": ("再說一次", "Retry"),
    "clear": ("清空", "Clear"),
    "examples": ("試試看", "Try one of these"),
    "settings": ("設定", "Settings"),
    "adapter": ("模型（本機訓練的，或輸入 Hub 名稱 owner/name）", "Model (trained here, or a Hub id owner/name)"),
    "compare": ("與原始模型並排比較", "Side by side with the base model"),
    "filtering": ("過濾論壇殘留與個資", "Filter forum residue and personal data"),
    "sampling": ("取樣", "Sampling"),
    "temperature": ("溫度", "Temperature"),
    "top_p": ("Top-p", "Top-p"),
    "length": ("最長字元數（token）", "Longest answer (tokens)"),
    "repetition": ("重複懲罰", "Repetition penalty"),
    "history": ("紀錄", "History"),
    "consent": ("我同意這段對話可作為訓練資料", "This conversation may be used as training data"),
    "export": ("匯出 JSONL", "Export JSONL"),
    "import": ("匯入 JSONL", "Import JSONL"),
    "with_adapter": ("微調後", "Fine-tuned"),
    "base_only": ("原始模型", "Base model"),
    "loading": ("載入中", "Loading"),
    "ready": ("就緒", "Ready"),
    "failed": ("失敗", "Failed"),
    "why_tag": ("訊息以標籤指定", "named by a tag in the message"),
    "why_classifier": ("分類器看到", "the classifier saw"),
    "chosen": ("你選的", "your choice"),
    "untagged": ("沒有給標籤，由模型自己決定語氣", "no tag given, the model chose its voice"),
    "removed": ("過濾了 {count} 處", "{count} filtered"),
    "figures": (
        "{tokens} tokens・首字 {first:.2f} 秒・共 {seconds:.1f} 秒",
        "{tokens} tokens · first words {first:.2f} s · {seconds:.1f} s",
    ),
    "stopped": ("已停止", "stopped"),
    "cut": ("達到長度上限", "cut at the length limit"),
    "nothing": ("還沒有對話可以匯出", "There is no conversation to export yet"),
    "need_consent": ("匯出前請先勾選同意", "Please tick the consent before exporting"),
    "not_yours": ("這個檔案不是這個工作階段上傳的", "That file was not uploaded in this session"),
    "imported": ("匯入 {count} 輪對話", "{count} turns imported"),
    "empty": ("（模型沒有說話）", "(the model said nothing)"),
    "language": ("語言 Language", "語言 Language"),
}


def say(key: str, language: Language, **values: object) -> str:
    """The words for `key`; a missing key is a mistake in the program and raises."""
    text = WORDS[key][0 if language == "zh" else 1]
    return text.format(**values) if values else text


def preferred(accept_language: str | None) -> Language:
    """The interface's language for a browser: Chinese unless it asks for another before any Chinese."""
    first = (accept_language or "zh").split(",")[0].strip().lower()
    return "zh" if first.startswith("zh") or not first else "en"
