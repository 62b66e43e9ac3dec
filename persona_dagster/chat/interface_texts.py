"""What the chat says in its own voice, in Traditional Chinese and in English."""

from __future__ import annotations

from typing import Literal

Language = Literal["zh", "en"]

WORDS: dict[str, tuple[str, str]] = {
    "title": ("PersonaLlama 聊天室", "PersonaLlama chat"),
    "subtitle": ("一個模型，{count} 種口吻", "One model, {count} voices"),
    "welcome": ("想聊什麼？", "What is on your mind?"),
    "welcome_more": (
        "直接打字就好，系統會依內容挑一種口吻回你；也可以在下面指定由誰回答。",
        "Just type: a voice is picked by what you say. Or choose below who answers.",
    ),
    "welcome_examples": ("點一句，馬上試：", "Click one to send it:"),
    "mode": ("畫面", "View"),
    "single": ("單一模型", "One model"),
    "persona": ("誰來回答", "Who answers"),
    "auto": ("自動", "Auto"),
    "model": ("模型自己選", "Model's own choice"),
    "ask": ("想說什麼都可以", "Say something"),
    "send": ("送出", "Send"),
    "stop": ("停止", "Stop"),
    "retry": ("再說一次", "Retry"),
    "clear": ("清空", "Clear"),
    "settings": ("設定", "Settings"),
    "adapter": ("模型（本機訓練的，或輸入 Hub 名稱 owner/name）", "Model (trained here, or a Hub id owner/name)"),
    "compare": ("與原始模型並排", "Beside the base model"),
    "filtering": ("過濾論壇殘留與個資", "Filter forum residue and personal data"),
    "sampling": ("取樣", "Sampling"),
    "temperature": ("溫度", "Temperature"),
    "top_p": ("Top-p", "Top-p"),
    "length": ("回覆長度上限（token）", "Longest answer (tokens)"),
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
    "why": ("為什麼是這個口吻：", "Why this voice: "),
    "why_tag": ("你在訊息裡用標籤指定了它", "your message names its tag"),
    "why_classifier": ("它常被問的問題裡，最像的是：", "of what it is often asked, most like this: "),
    "why_nothing": ("沒有相近的例題，這是最接近的一種", "no example question is like it; this voice is the nearest"),
    "chosen": ("你指定的", "your choice"),
    "untagged": ("沒有指定標籤，語氣由模型決定", "no tag was given; the model chose its own tone"),
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
    "imported": ("已匯入 {count} 輪對話", "{count} turns imported"),
    "empty": ("（模型沒有說話）", "(the model said nothing)"),
    "asked_nothing": ("請先輸入內容", "Please type something first"),
    "asked_too_long": ("訊息太長：{length} 字，最多 {most} 字", "Too long: {length} characters, at most {most}"),
    "no_persona": ("沒有這個口吻：{name}", "There is no voice named {name}"),
    "file_too_large": ("{where}：檔案超過 {most} MB", "{where}: larger than {most} MB"),
    "file_no_text": ("{where}：不是 UTF-8 文字檔", "{where}: no UTF-8 text"),
    "file_no_json": ("{where}：不是 JSON（{why}）", "{where}: no JSON ({why})"),
    "file_no_dialogue": (
        "{where}：`messages` 必須是 user 與 assistant 輪流發言",
        "{where}: `messages` must be user and assistant in turn",
    ),
    "unusable": ("這個模型現在用不了：{why}", "This model cannot be used now: {why}"),
    "idle": ("尚未載入模型", "no model loaded yet"),
    "loading_base": ("原始模型 {name}", "the base model {name}"),
    "loading_adapter": ("adapter {name}", "the adapter {name}"),
    "warming": ("暖機：{name}", "warming up {name}"),
    "base_title": ("只用原始模型：{name}", "base only: {name}"),
    "language": ("語言 Language", "語言 Language"),
    "voted": (
        "謝謝，已記在這段對話裡；勾選同意後就能一起匯出",
        "Thank you: kept with this conversation, and in its export",
    ),
}
# What Gradio itself says, in the browser's language or in English alone, as the script of the page exchanges it.
GRADIO: tuple[tuple[str, ...], ...] = (
    # Chinese, English, further spellings
    ("清空對話", "Clear"),
    ("對話", "chatbot conversation"),
    ("複製對話", "Copy conversation"),
    ("已複製對話", "Copied conversation"),
    ("複製訊息", "Copy message", "chatbot.copy_message"),
    ("已複製", "Copied message", "chatbot.copied_message"),
    ("讚", "Like", "good response"),
    ("不讚", "Dislike", "bad response"),
    ("請注意", "Warning"),
    ("好的", "Info"),
    ("錯誤", "Error"),
    ("關閉", "Close"),
    ("重設為預設值", "Reset to default value"),
    ("移除這個檔案", "Remove this file"),
    ("移除檔案", "Remove file"),
    ("上傳檔案", "Upload file"),
    ("選擇檔案", "Choose a file", "Upload a file"),
    ("已上傳的檔案", "Uploaded files"),
    ("已按讚", "Liked"),
    ("已按不讚", "Disliked"),
)
# Those that go on with a text: Chinese, English.
GRADIO_BEFORE: tuple[tuple[str, str], ...] = (
    ("回答：", "bot's message: "),
    ("你：", "user's message: "),
    ("試試看：", "Select example: "),
)


def say(key: str, language: Language, **values: object) -> str:
    """The words for `key`; a missing key is a mistake in the program and raises."""
    text = WORDS[key][0 if language == "zh" else 1]
    return text.format(**values) if values else text


def preferred(accept_language: str | None) -> Language:
    """The interface's language for a browser: Chinese unless it asks for another before any Chinese."""
    first = (accept_language or "zh").split(",")[0].strip().lower()
    return "zh" if first.startswith("zh") or not first else "en"
