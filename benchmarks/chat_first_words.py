"""Seconds to the first words shown, once warm, and tokens a second: the newest adapter under $PERSONA_HOME."""

from __future__ import annotations

import os
import statistics

from persona_dagster.chat.engine import Ask, Sampling
from persona_dagster.chat.service import Chat
from persona_dagster.settings import Settings

chat = Chat.open(Settings())
chat.engine.load(chat.first).result()
firsts, speeds = [], []
for text in (
    "我好像失戀了",
    "Transformer",
    "主管又把鍋甩給我",
    "他最近都不太回我訊息，我好不安",
    "LoRA 微調為什麼省記憶體？",
    "室友吃我的東西吃了半年，還說我小氣",
    "tokenizer 為什麼會把一個中文字切成好幾個 token",
    "我好怕再受傷，所以一直不敢開始新的感情",
):
    route = chat.router.route(text)
    persona = chat.personas.personas[route.persona]
    answer = chat.engine.answer(
        Ask([{"role": "user", "content": text}], chat.first, persona, Sampling(max_new_tokens=40, seed=1))
    )
    list(answer)
    firsts.append(answer.first_token_s or answer.seconds)
    speeds.append(answer.tokens / answer.seconds)
    print(
        f"  {route.persona:11} {firsts[-1]:.2f} s to the first words, {speeds[-1]:.1f} tokens/s: {answer.text[:40]!r}"
    )
print(f"{chat.first.title}, load average {os.getloadavg()[0]:.1f}")
median, speed = statistics.median(firsts), statistics.median(speeds)
print(f"first words: median {median:.2f} s, worst {max(firsts):.2f} s; {speed:.1f} tokens/s")
