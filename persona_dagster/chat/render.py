"""Turns as the page shows them: who spoke and why, the words, what was filtered. Everything said is plain text."""

from __future__ import annotations

import re
from html import escape
from typing import Any

from persona_dagster.chat.conversation import AUTO, MODEL, Conversation, Turn
from persona_dagster.chat.engine import Status
from persona_dagster.chat.words import Language, say
from persona_dagster.config.personas import Personas

CSS = """
.gradio-container { max-width: 1180px !important; margin: 0 auto !important; }
#page-top { gap: 2px; flex: 0 0 auto; }
#head h1 { font-size: 1.35rem; font-weight: 700; margin: 0; }
#head p { margin: 0; opacity: .72; font-size: .9rem; }
#status { font-size: .82rem; padding: 0; }
#status .bar { height: 3px; border-radius: 2px; overflow: hidden; margin-top: 4px;
  background: var(--border-color-primary); }
#status .bar i { display: block; height: 100%; background: var(--color-accent); transition: width .6s; }
#status .bad { color: #b91c1c; overflow-wrap: anywhere; }
#asking { gap: 8px; align-items: stretch; flex-wrap: nowrap; }
#actions { gap: 8px; justify-content: flex-end; }
#actions button { flex: 0 0 auto; }
/* Gradio keeps line breaks of the whole bubble, its own markup's too: only what is said needs them. */
#chats .message-markdown-disabled { white-space: normal !important; }
#chats .message-content .md { white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.65; }
#chats .thought-group { white-space: pre-line; font-size: .85rem; opacity: .8; border: 0; padding: 0;
  background: none; box-shadow: none; }
#adapter input { text-overflow: ellipsis; padding-right: 1.6em; }
#chats button[aria-label="Clear"] { display: none; }
#examples td, #examples button { white-space: nowrap; }
@media (max-width: 640px) {
  #head h1 { font-size: 1.1rem; }
  #head p { display: none; }
  #chat, #base-chat { height: 46vh !important; }
  #who label { padding: 4px 8px; font-size: .82rem; }
  #asking button { min-width: 58px !important; padding: 0 6px; font-size: .9rem; }
  /* In a column a chat would shrink to nothing while empty, and grow past the screen when not. */
  #chats { flex-direction: column; }
  #chats > * { flex: 0 0 auto !important; width: 100%; }
}
"""


def head(language: Language) -> str:
    return f"<h1>{escape(say('title', language))}</h1><p>{escape(say('subtitle', language))}</p>"


def status(now: Status, language: Language) -> str:
    """One line, and a bar while something loads."""
    if now.error:
        return f'<div class="bad">{escape(say("failed", language))}: {escape(now.text)}</div>'
    if now.share >= 1:
        return f"<div>● {escape(say('ready', language))} · {escape(now.text)}</div>"
    bar = f'<div class="bar"><i style="width:{now.share:.0%}"></i></div>'
    return f"<div>○ {escape(say('loading', language))} · {escape(now.text)}{bar}</div>"


def voices(personas: Personas, language: Language) -> list[tuple[str, str]]:
    """What the persona picker offers: auto, each persona, and the model's own choice."""
    named = [(voice(personas, name, language), name) for name in personas.personas]
    return [(say("auto", language), AUTO), *named, (say("model", language), MODEL)]


def voice(personas: Personas, name: str, language: Language) -> str:
    persona = personas.personas[name]
    return persona.tag.strip("[]") if language == "zh" else persona.title


def history(conversation: Conversation, personas: Personas, language: Language) -> list[dict[str, Any]]:
    """Gradio messages: question, then a foldable line with the route, the answer, and what was filtered."""
    return [message for turn in conversation.turns for message in _turn(turn, personas, language)]


def _turn(turn: Turn, personas: Personas, language: Language) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": plain(turn.question)}]
    if turn.finish is not None or turn.adapter:
        messages.append(_note(*_route(turn, personas, language)))
    empty = say("empty", language) if turn.finish else "…"
    messages.append({"role": "assistant", "content": plain(turn.answer or empty)})
    if turn.finish is not None:
        messages.append(_note(*_figures(turn, language)))
    return messages


def _note(title: str, content: str) -> dict[str, Any]:
    return {"role": "assistant", "content": plain(content), "metadata": {"title": plain(title), "status": "done"}}


def plain(text: str) -> str:
    """`text` without tags. Gradio takes HTML for HTML with Markdown off, too: an image would be fetched."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text)


def _route(turn: Turn, personas: Personas, language: Language) -> tuple[str, str]:
    """Who answers and how that came about: the title of the note, and its details."""
    if turn.persona is None:
        return say("model", language), say("untagged", language)
    name = voice(personas, turn.persona, language)
    if turn.route is None:
        return name, say("chosen", language)
    route = turn.route
    title = f"{name} · {say('auto', language)} {route.sure:.0%}"
    words = "、".join(route.why) if language == "zh" else ", ".join(route.why)
    why = say(f"why_{route.means}", language) + (f": {words}" if words else "")
    scores = sorted(route.scores.items(), key=lambda item: -item[1])
    return f"{title} · {words}" if words else title, "\n".join(
        [why, *(f"{voice(personas, each, language)} {score:.0%}" for each, score in scores)]
    )


def _figures(turn: Turn, language: Language) -> tuple[str, str]:
    figures = say("figures", language, tokens=turn.tokens, first=turn.first_token_s, seconds=turn.seconds)
    ends = {"stopped": f" · {say('stopped', language)}", "length": f" · {say('cut', language)}"}
    title = figures + ends.get(turn.finish or "", "")
    if not turn.removed:
        return title, turn.adapter
    title += f" · {say('removed', language, count=len(turn.removed))}"
    return title, "\n".join([turn.adapter, *(f"{piece.kind}: {piece.text}" for piece in turn.removed)])
