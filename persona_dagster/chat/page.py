"""The page of the chat in Gradio: what stands on it, and what happens on each click.

Its annotations are evaluated where they stand: Gradio injects its request by the type it finds there.
"""

import logging
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from persona_dagster.chat import render
from persona_dagster.chat.adapters import AdapterError, find_adapters
from persona_dagster.chat.conversation import AUTO, MODEL, Conversation, ConversationError, follow, read_jsonl
from persona_dagster.chat.engine import EngineError, Sampling
from persona_dagster.chat.http_request_guard import COOKIE
from persona_dagster.chat.interface_texts import Language, preferred, say
from persona_dagster.chat.service import Chat

log = logging.getLogger(__name__)

AT_ONCE = 16  # listeners that may wait for the one model
QUIET: dict[str, Any] = {"show_progress": "hidden"}
SINGLE, BESIDE = "single", "beside"


class Choices(NamedTuple):
    """The controls' values, in the order in which the page hands them over."""

    who: str
    adapter: str
    mode: str
    filtering: bool
    temperature: float
    top_p: float
    length: float
    repetition: float
    language: Language

    @property
    def compare(self) -> bool:
        return self.mode == BESIDE

    @property
    def sampling(self) -> Sampling:
        return Sampling(
            max_new_tokens=int(self.length),
            temperature=self.temperature,
            top_p=self.top_p,
            repetition_penalty=self.repetition,
        )


def build_page(chat: Chat) -> Any:
    """The page as Gradio Blocks. All state is a session's own: two conversations and the language."""
    import gradio as gr

    with gr.Blocks(title="PersonaLlama", analytics_enabled=False) as page:
        parts = SimpleNamespace(language=gr.State("zh"), left=gr.State(Conversation()), right=gr.State(Conversation()))
        with gr.Row(elem_id="top"):
            parts.head = gr.HTML(render.head(chat.personas, "zh"), elem_id="head")
            parts.tongue = gr.Radio(
                [("中文", "zh"), ("English", "en")], value="zh", label="語言 Language", show_label=False,
                container=False, elem_id="language",
            )  # fmt: skip
            parts.open_settings = gr.Button(say("settings", "zh"), size="sm", min_width=64, elem_id="open-settings")
        parts.status = gr.HTML(render.status(chat.engine.status, "zh"), elem_id="status")
        with gr.Row(elem_id="body"):
            with gr.Column(elem_id="main", scale=1):
                _lay_out(chat, parts)
            with gr.Column(elem_id="settings", visible=False, scale=0) as parts.settings:
                _lay_out_settings(chat, parts)
        _wire_asking(chat, parts)
        _wire_the_rest(chat, parts)
        _wire_language(chat, parts, page)
    return page


def _lay_out(chat: Chat, parts: SimpleNamespace) -> None:
    import gradio as gr

    with gr.Row(elem_id="chats", equal_height=True):
        # Plain text: what a model or a user says never becomes markup, and loads nothing from elsewhere.
        options: dict[str, Any] = {"render_markdown": False, "allow_tags": False, "buttons": ["copy", "copy_all"]}
        options |= {"layout": "bubble", "height": "50vh"}  # the style sheet's height counts; without one it grows
        parts.box = gr.Chatbot(
            label=say("with_adapter", "zh"), show_label=False, elem_id="chat", feedback_options=("Like", "Dislike"),
            placeholder=render.welcome("zh"), examples=[{"text": text} for text in render.examples(chat.personas)],
            **options,
        )  # fmt: skip
        parts.base_box = gr.Chatbot(
            label=say("base_only", "zh"), elem_id="base-chat", visible=False, feedback_options=None, **options
        )
    parts.who = gr.Radio(render.voices(chat.personas, "zh"), value=AUTO, label=say("persona", "zh"), elem_id="who")
    with gr.Row(elem_id="asking"):
        parts.question = gr.Textbox(
            placeholder=say("ask", "zh"), label=say("ask", "zh"), show_label=False, lines=1, max_lines=6, scale=8,
            container=False, autofocus=True, elem_id="question",
        )  # fmt: skip
        parts.send = gr.Button(say("send", "zh"), variant="primary", scale=1, min_width=84, elem_id="send")
        parts.stop = gr.Button(say("stop", "zh"), variant="stop", scale=1, min_width=84, elem_id="stop")
    with gr.Row(elem_id="actions"):
        parts.mode = gr.Radio(
            _modes("zh"), value=SINGLE, label=say("mode", "zh"), show_label=False, container=False, elem_id="mode"
        )
        parts.retry = gr.Button(say("retry", "zh"), size="sm", min_width=90, elem_id="retry")
        parts.clear = gr.Button(say("clear", "zh"), size="sm", min_width=90, elem_id="clear")


def _modes(language: Language) -> list[tuple[str, str]]:
    return [(say("single", language), SINGLE), (say("compare", language), BESIDE)]


def _lay_out_settings(chat: Chat, parts: SimpleNamespace) -> None:
    import gradio as gr

    parts.adapter = gr.Dropdown(
        _adapters(chat, "zh"), value=chat.first.name, label=say("adapter", "zh"), allow_custom_value=True,
        elem_id="adapter",
    )  # fmt: skip
    parts.filtering = gr.Checkbox(True, label=say("filtering", "zh"), elem_id="filtering")
    with gr.Accordion(say("sampling", "zh"), open=False) as parts.sampling:
        parts.temperature = gr.Slider(0, 1.5, 0.7, step=0.05, label=say("temperature", "zh"))
        parts.top_p = gr.Slider(0.05, 1, 0.9, step=0.05, label=say("top_p", "zh"))
        parts.length = gr.Slider(16, 1024, 200, step=8, label=say("length", "zh"), elem_id="length")
        parts.repetition = gr.Slider(1, 1.5, 1.1, step=0.05, label=say("repetition", "zh"))
    with gr.Accordion(say("history", "zh"), open=True) as parts.history:
        parts.consent = gr.Checkbox(False, label=say("consent", "zh"), elem_id="consent")
        parts.export = gr.Button(say("export", "zh"), size="sm", elem_id="export")
        parts.file = gr.File(visible=False, elem_id="exported", label="JSONL")
        parts.bring = gr.UploadButton(say("import", "zh"), size="sm", file_types=[".jsonl"], elem_id="import")


def _adapters(chat: Chat, language: Language) -> list[tuple[str, str]]:
    """(shown, name) of the adapters here; the base alone has a title in words."""
    return [
        (say("base_title", language, name=each.base.model) if each.name == "base" else each.title, each.name)
        for each in find_adapters(chat.settings)
    ]


def _wire_asking(chat: Chat, parts: SimpleNamespace) -> None:
    import gradio as gr

    controls = [
        parts.who, parts.adapter, parts.mode, parts.filtering, parts.temperature, parts.top_p, parts.length,
        parts.repetition, parts.language,
    ]  # fmt: skip
    talk = [parts.left, parts.right]
    shown = [*talk, parts.box, parts.base_box, parts.question]
    limits: dict[str, Any] = {"concurrency_limit": AT_ONCE, **QUIET}

    def ask(request: gr.Request, text: str, mine: Conversation, other: Conversation, *chosen: Any) -> Iterator[Any]:
        yield from respond(chat, text, (mine, other), Choices(*chosen), str(request.session_hash))

    def ask_example(
        request: gr.Request, event: gr.SelectData, mine: Conversation, other: Conversation, *chosen: Any
    ) -> Iterator[Any]:
        text = event.value["text"] if isinstance(event.value, dict) else str(event.value)
        yield from respond(chat, text, (mine, other), Choices(*chosen), str(request.session_hash))

    def again(request: gr.Request, mine: Conversation, other: Conversation, *chosen: Any) -> Iterator[Any]:
        if not mine.turns:
            yield [gr.skip()] * len(shown)
            return
        text = mine.turns.pop().question
        if other.turns and other.turns[-1].question == text:
            other.turns.pop()
        yield from respond(chat, text, (mine, other), Choices(*chosen), str(request.session_hash))

    def stop(request: gr.Request) -> None:
        chat.stop(str(request.session_hash))

    def judge(event: gr.LikeData, mine: Conversation, language: Language) -> Conversation:
        index = event.index if isinstance(event.index, int) else event.index[0]
        if turn := render.turn_at(mine, chat.personas, index):
            turn.vote = "up" if event.liked is True else "down" if event.liked is False else None
            gr.Info(say("voted", language))
        return mine

    def forget() -> tuple[Any, ...]:
        return Conversation(), Conversation(), [], []

    gr.on([parts.send.click, parts.question.submit], ask, [parts.question, *talk, *controls], shown, **limits)
    parts.box.example_select(ask_example, [*talk, *controls], shown, **limits)
    parts.retry.click(again, [*talk, *controls], shown, **limits)
    parts.stop.click(stop, None, None, **QUIET)
    parts.box.like(judge, [parts.left, parts.language], parts.left, **QUIET)
    cleared = gr.on([parts.clear.click, parts.box.clear], stop, None, None, **QUIET)
    cleared.then(forget, None, shown[:4], **QUIET)


def _wire_the_rest(chat: Chat, parts: SimpleNamespace) -> None:
    import gradio as gr

    def preload(name: str, language: Language) -> None:
        try:
            chat.engine.load(chat.adapter(name))
        except AdapterError as error:
            gr.Warning(_told(error, language))

    def beside(mode: str) -> tuple[Any, Any]:
        return gr.update(show_label=mode == BESIDE), gr.update(visible=mode == BESIDE)

    def now(language: Language) -> str:
        return render.status(chat.engine.status, language)

    def export(conversation: Conversation, consent: bool, language: Language) -> Any:
        if not conversation.messages() or not consent:
            gr.Warning(say("need_consent" if conversation.messages() else "nothing", language))
            return gr.skip()
        # The name under which $PERSONA_HOME/imports takes dialogues.
        path = Path(tempfile.mkdtemp()) / f"capybara-chat-{datetime.now(UTC):%Y%m%d-%H%M%S}.jsonl"
        path.write_text(conversation.to_jsonl(consent), encoding="utf-8")
        return gr.update(value=str(path), visible=True)

    def bring(request: gr.Request, path: str, language: Language) -> Any:
        if not chat.uploads.holds(request.cookies.get(COOKIE), path):
            gr.Warning(say("not_yours", language))
            return gr.skip(), gr.skip()
        try:
            conversation = read_jsonl(Path(path))
        except ConversationError as error:
            gr.Warning(error.say(language))
            return gr.skip(), gr.skip()
        gr.Info(say("imported", language, count=len(conversation.turns)))
        return conversation, _box(chat, conversation, language)

    opened = gr.State(False)
    parts.open_settings.click(
        lambda is_open: (not is_open, gr.update(visible=not is_open)), opened, [opened, parts.settings], **QUIET
    )
    parts.mode.change(beside, parts.mode, [parts.box, parts.base_box], **QUIET)
    parts.adapter.input(preload, [parts.adapter, parts.language], None, **QUIET)
    parts.export.click(export, [parts.left, parts.consent, parts.language], parts.file, **QUIET)
    parts.bring.upload(bring, [parts.bring, parts.language], [parts.left, parts.box], **QUIET)
    gr.Timer(1.0).tick(now, parts.language, parts.status, **QUIET)


def _wire_language(chat: Chat, parts: SimpleNamespace, page: Any) -> None:
    import gradio as gr

    worded = {
        "base_box": ("label", "base_only"), "question": ("placeholder", "label", "ask"),
        "send": ("value", "send"), "stop": ("value", "stop"), "retry": ("value", "retry"),
        "clear": ("value", "clear"), "open_settings": ("value", "settings"),
        "filtering": ("label", "filtering"), "sampling": ("label", "sampling"),
        "temperature": ("label", "temperature"), "top_p": ("label", "top_p"), "length": ("label", "length"),
        "repetition": ("label", "repetition"), "history": ("label", "history"), "consent": ("label", "consent"),
        "export": ("value", "export"), "bring": ("label", "import"),
    }  # fmt: skip

    def speak(language: Language) -> list[Any]:
        first = [
            language,
            render.head(chat.personas, language),
            render.status(chat.engine.status, language),
            gr.update(choices=render.voices(chat.personas, language), label=say("persona", language)),
            gr.update(choices=_modes(language), label=say("mode", language)),
            gr.update(choices=_adapters(chat, language), label=say("adapter", language)),
            gr.update(label=say("with_adapter", language), placeholder=render.welcome(language)),
        ]
        changed: list[dict[str, Any]] = [
            {name: say(key, language) for name in names} for *names, key in worded.values()
        ]
        return [*first, *(gr.update(**change) for change in changed)]

    def greet(request: gr.Request) -> list[Any]:
        language = preferred(request.headers.get("accept-language"))
        return [language, *speak(language)]

    fixed = [parts.language, parts.head, parts.status, parts.who, parts.mode, parts.adapter, parts.box]
    spoken = [*fixed, *(getattr(parts, name) for name in worded)]
    parts.tongue.input(speak, parts.tongue, spoken, **QUIET)
    page.load(greet, None, [parts.tongue, *spoken], **QUIET)


def _told(error: Exception, language: Language) -> str:
    """What went wrong; the details of a model that cannot be had are a library's, in English."""
    return error.say(language) if isinstance(error, ConversationError) else say("unusable", language, why=error)


def _box(chat: Chat, conversation: Conversation, language: Language) -> Any:
    """The chat's messages, and which of them have a thumb."""
    import gradio as gr

    shown, votes = (render.history(conversation, chat.personas, language), render.votes(conversation, chat.personas))
    return gr.update(value=shown, feedback_value=votes)


def respond(
    chat: Chat, text: str, talk: tuple[Conversation, Conversation], chosen: Choices, session: str
) -> Iterator[list[Any]]:
    """Yields (left, right, chat, base chat, question box) after every piece; errors come as a toast."""
    import gradio as gr

    mine, other = talk
    try:
        adapter = chat.adapter(chosen.adapter)
        turn = mine.begin(text, chosen.who, adapter, chat.router)
        asked = [(turn, mine.ask(turn, adapter, chat.engine, chosen.sampling, chosen.filtering))]
        if chosen.compare:
            base = chat.base_of(adapter)
            twin = other.begin(text, turn.persona or MODEL, base, chat.router)
            asked.append((twin, other.ask(twin, base, chat.engine, chosen.sampling, chosen.filtering)))
    except (ConversationError, AdapterError, EngineError) as error:
        gr.Warning(_told(error, chosen.language))
        yield [gr.skip()] * 5
        return

    def shown(box: Any) -> list[Any]:
        language = chosen.language
        base = render.history(other, chat.personas, language) if chosen.compare else gr.skip()
        return [mine, other, _box(chat, mine, language), base, box]

    with chat.running(session, [answer for _, answer in asked]):
        yield shown("")
        try:
            for turn, answer in asked:
                for _ in follow(turn, answer):
                    yield shown(gr.skip())
        except Exception as error:
            log.exception("an answer failed")
            gr.Warning(f"{say('failed', chosen.language)}: {error}")
            yield shown(gr.skip())
