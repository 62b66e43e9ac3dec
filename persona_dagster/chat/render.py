"""Turns as the page shows them: who spoke and why, the words, what was filtered. Everything said is plain text."""

from __future__ import annotations

import json
import re
from html import escape
from typing import Any

from persona_dagster.chat.conversation import AUTO, MODEL, Conversation, Turn
from persona_dagster.chat.engine import Status
from persona_dagster.chat.interface_texts import GRADIO, GRADIO_BEFORE, Language, say
from persona_dagster.config.personas import Personas

CSS = """
.gradio-container { width: 100%; min-width: 0 !important; max-width: 1240px !important; margin: 0 auto !important; }
.gradio-container main { padding-top: 10px !important; }
#head { flex: 1 1 auto; }
#top { align-items: center; flex-wrap: nowrap; gap: 10px; }
#top > * { min-width: 0 !important; }
#head h1 { font-size: 1.3rem; font-weight: 700; margin: 0; line-height: 1.3; }
#head p { margin: 0; opacity: .7; font-size: .88rem; }
#language { flex: 0 0 auto; width: auto; border: 0; }
#language label { padding: 4px 9px; }
#open-settings { flex: 0 0 auto; }
#status { font-size: .8rem; padding: 0; margin: -14px 0 -10px; overflow-wrap: anywhere; }
#status .bar { height: 3px; border-radius: 2px; overflow: hidden; margin-top: 4px;
  background: var(--border-color-primary); }
#status .bar i { display: block; height: 100%; background: var(--color-accent); transition: width .6s; }
#status .bad { color: #b91c1c; overflow-wrap: anywhere; }
#body { flex-wrap: nowrap; align-items: flex-start; }
#main { min-width: 0 !important; gap: 10px; }
#settings { flex: 0 0 310px; min-width: 0 !important; }
#chat, #base-chat { height: clamp(280px, 100dvh - 390px, 900px) !important; min-width: 0 !important; }
#asking { gap: 8px; align-items: stretch; flex-wrap: nowrap; }
#asking button { flex: 0 0 auto; }
#actions { gap: 8px; align-items: center; flex-wrap: nowrap; }
#actions button { flex: 0 0 auto; }
#mode { flex: 1 1 auto; width: auto; min-width: 0 !important; border: 0; padding: 0; }
#mode label { padding: 4px 10px; font-size: .86rem; }
#who label { padding: 6px 12px; }
/* Gradio keeps line breaks of the whole bubble, its own markup's too: only what is said needs them. */
#chats .message-markdown-disabled { white-space: normal !important; }
#chats .message-content .md { white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.65; }
#chats .thought-group { white-space: pre-line; font-size: .85rem; opacity: .85; border: 0; padding: 0;
  background: none; box-shadow: none; }
#chats .placeholder-content { width: 100%; }
.welcome { text-align: center; padding: 8px 12px; }
.welcome h2 { font-size: 1.25rem; margin: 0 0 6px; }
.welcome p { margin: 0 auto; max-width: 34em; opacity: .75; font-size: .92rem; }
.welcome p + p { margin-top: 10px; opacity: .6; font-size: .85rem; }
#chats .examples { max-width: 720px; margin: 0 auto; gap: 8px; padding: 4px 12px; }
#chats .example { min-height: 0; padding: 10px 14px; justify-content: center; cursor: pointer;
  border: 1px solid var(--border-color-primary); border-radius: 10px; background: var(--background-fill-secondary); }
#chats .example:hover { border-color: var(--color-accent); }
#adapter input { text-overflow: ellipsis; padding-right: 1.6em; }
#chats button:is([aria-label="Clear"], [aria-label="清空對話"]) { display: none; }
.voice { font-weight: 600; }
@media (max-width: 700px) {
  #head h1 { font-size: 1.05rem; }
  #head p { display: none; }
  #top, #body { flex-wrap: wrap; }
  #head { flex: 1 1 100%; }
  #settings { flex: 1 1 100%; order: -1; }
  #chat, #base-chat { height: clamp(220px, 100dvh - 430px, 700px) !important; }
  #actions { flex-wrap: wrap; }
  #chats .examples { grid-template-columns: 1fr; }
  #chats .example { padding: 6px 12px; }
  #chats .example:nth-child(n + 4), .welcome p + p { display: none; }
  #who .wrap { gap: 6px; }
  #who label { padding: 4px 8px; font-size: .82rem; }
  #asking button { min-width: 58px !important; padding: 0 6px; font-size: .9rem; }
  /* In a column a chat would shrink to nothing while empty, and grow past the screen when not. */
  #chats { flex-direction: column; }
  #chats > * { flex: 0 0 auto !important; width: 100%; }
}
"""


def css(personas: Personas) -> str:
    """The page's style; each persona's colour stands on its choice (after "auto") and on its turns."""
    marks = (
        f"#who label:nth-of-type({number + 1}) span {{ color: {colour}; font-weight: 600; }}\n"
        f"#who label.selected:nth-of-type({number + 1}) {{ background: {colour}; border-color: {colour}; }}\n"
        f"#who label.selected:nth-of-type({number + 1}) span {{ color: #fff; }}\n"
        f".voice-{number} {{ color: {colour}; }}\n"
        for number, colour in enumerate((persona.color for persona in personas.personas.values()), start=1)
    )
    return CSS + "".join(marks)


# Gradio labels some controls in the browser's language, others in English alone; the page has a language of its own.
SCRIPT = r"""<script>
const WORDS = new Map(%s.flatMap(all => all.map(one => [one, all])));
const BEFORE = %s;
function worded(text, zh) {
  const all = WORDS.get(text);
  if (all) return all[zh ? 0 : 1];
  text = text.replace(/^Select example \d+: /, "Select example: ");
  for (const [chinese, english] of BEFORE) {
    const [here, other] = zh ? [chinese, english] : [english, chinese];
    if (text.startsWith(other)) return here + text.slice(other.length);
  }
  return text;
}
function exchange() {
  const send = document.querySelector("#send");
  if (!send) return;
  const zh = send.textContent.trim() === "%s";
  document.documentElement.lang = zh ? "zh-Hant" : "en";
  for (const node of document.querySelectorAll("[title], [aria-label]"))
    for (const name of ["title", "aria-label"]) {
      const before = node.getAttribute(name) || "", after = worded(before, zh);
      if (after !== before) node.setAttribute(name, after);
      const slider = /^(?:number input|range slider) for (.+)$/.exec(before);
      if (slider && zh) node.setAttribute(name, slider[1]);  // Gradio sets it anew with another label
    }
  for (const node of document.querySelectorAll(".toast-title")) {
    const all = WORDS.get(node.firstChild.data.trim());
    if (all) node.firstChild.data = all[zh ? 0 : 1] + " ";
  }
}
let waiting = false;
new MutationObserver(() => {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; exchange(); });
}).observe(document, {subtree: true, childList: true, attributeFilter: ["title", "aria-label"]});
</script>"""


def script() -> str:
    """Puts Gradio's own labels into the language of the page."""
    words, before = (json.dumps(some, ensure_ascii=False) for some in (GRADIO, GRADIO_BEFORE))
    return SCRIPT % (words, before, say("send", "zh"))


def head(personas: Personas, language: Language) -> str:
    subtitle = say("subtitle", language, count=len(personas.personas))
    return f"<h1>{escape(say('title', language))}</h1><p>{escape(subtitle)}</p>"


def welcome(language: Language) -> str:
    """What an empty chat says, above the examples."""
    told = "".join(f"<p>{escape(say(key, language))}</p>" for key in ("welcome_more", "welcome_examples"))
    return f'<div class="welcome"><h2>{escape(say("welcome", language))}</h2>{told}</div>'


def examples(personas: Personas) -> list[str]:
    """Two questions for each of the first three personas."""
    return [probe for persona in [*personas.personas.values()][:3] for probe in persona.probes[:2]]


def status(now: Status, language: Language) -> str:
    """One line, and a bar while something loads."""
    if now.error:
        return f'<div class="bad">{escape(say("failed", language))}: {escape(now.text)}</div>'
    text = escape(say(now.key, language, name=now.text) if now.key else now.text)
    if now.share >= 1:
        return f"<div>● {escape(say('ready', language))} · {text}</div>"
    bar = f'<div class="bar"><i style="width:{now.share:.0%}"></i></div>'
    return f"<div>○ {escape(say('loading', language))} · {text}{bar}</div>"


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


def turn_at(conversation: Conversation, personas: Personas, index: int) -> Turn | None:
    """The turn that message number `index` of `history` belongs to."""
    roles = [message["role"] for message in history(conversation, personas, "en")[: index + 1]]
    return conversation.turns[roles.count("user") - 1] if "user" in roles else None


def votes(conversation: Conversation, personas: Personas) -> list[str | None]:
    """Of each message of `history` that is not the user's, as Gradio names it: on a turn's last message stands its
    vote."""
    thumbs = {"up": "Like", "down": "Dislike", None: None}
    marks: list[str | None] = []
    for turn in conversation.turns:
        messages = len(_turn(turn, personas, "en")) - 1
        marks += [thumbs[turn.vote]] * messages
    return marks


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
    """`title` is markup of our own, `content` plain text."""
    return {"role": "assistant", "content": plain(content), "metadata": {"title": title, "status": "done"}}


def plain(text: str) -> str:
    """`text` without tags. Gradio takes HTML for HTML with Markdown off, too: an image would be fetched."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text)


def _route(turn: Turn, personas: Personas, language: Language) -> tuple[str, str]:
    """Who answers and why: the title of the note, and its details."""
    if turn.persona is None:
        return escape(say("model", language)), say("untagged", language)
    number = [*personas.personas].index(turn.persona) + 1
    name = f'<span class="voice voice-{number}">{escape(voice(personas, turn.persona, language))}</span>'
    if turn.route is None:
        return name, say("chosen", language)
    route = turn.route
    quoted = [f"「{word}」" if language == "zh" else f"“{word}”" for word in route.why]
    words = ("、" if language == "zh" else ", ").join(quoted)
    if route.means == "classifier":
        why = say("why_classifier", language) + words if words else say("why_nothing", language)
    else:
        why = say("why_tag", language)
    scores = sorted(route.scores.items(), key=lambda item: -item[1])
    return f"{name} · {escape(say('auto', language))} {route.sure:.0%}" + (
        f" · {escape(quoted[0])}" if quoted else ""
    ), ("\n".join([say("why", language) + why, *(f"{voice(personas, each, language)} {p:.0%}" for each, p in scores)]))


def _figures(turn: Turn, language: Language) -> tuple[str, str]:
    figures = say("figures", language, tokens=turn.tokens, first=turn.first_token_s, seconds=turn.seconds)
    ends = {"stopped": f" · {say('stopped', language)}", "length": f" · {say('cut', language)}"}
    title = figures + ends.get(turn.finish or "", "")
    if not turn.removed:
        return escape(title), turn.adapter
    title += f" · {say('removed', language, count=len(turn.removed))}"
    return escape(title), "\n".join([turn.adapter, *(f"{piece.kind}: {piece.text}" for piece in turn.removed)])
