"""One model in memory and its adapters, answering one question at a time, piece by piece.

All work on the model happens in a single thread, in the order asked: conversations cannot mix, and a switch of
adapters cannot meet a running answer. What comes out has been through the inference filter.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from persona_dagster.chat.adapters import Adapter
from persona_dagster.config.personas import Persona, Personas
from persona_dagster.models.chat_format import Message, prompt_text, with_persona
from persona_dagster.models.output_filter import Removed, StreamFilter
from persona_dagster.models.prefix_cache import PrefixCache, shared_start

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

LONGEST_WINDOW = 8192  # tokens; what Llama 3 was trained for
MOST_ADAPTERS = 4  # kept on the base at once
_CUT = "\ufffd"  # what a tokenizer gives for half a character

Finish = Literal["stop", "length", "stopped"]


class Sampling(BaseModel):
    """`temperature` 0 takes the likeliest token each time; `seed` None draws anew each time."""

    model_config = ConfigDict(frozen=True)

    max_new_tokens: int = Field(200, ge=1, le=4096)
    temperature: float = Field(0.7, ge=0, le=2)
    top_p: float = Field(0.9, gt=0, le=1)
    repetition_penalty: float = Field(1.1, ge=1, le=2)
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """A conversation that ends with the user. `persona` None: untagged, the model chooses its own voice."""

    messages: Sequence[Message]
    adapter: Adapter
    persona: Persona | None = None
    sampling: Sampling = field(default_factory=Sampling)
    filtered: bool = True


@dataclass(frozen=True, slots=True)
class Status:
    """Where loading stands: `share` in 0-1; `text` names the `key` of interface_texts.py, or an error."""

    text: str
    share: float
    error: bool = False
    key: str = ""


class EngineError(RuntimeError):
    """A question that the engine cannot answer; the message says why."""


class Answer:
    """Iterate over it for the pieces; `stop()` ends it early. The figures are final when the iteration is."""

    def __init__(self, personas: Personas, filtered: bool) -> None:
        self.text = ""
        self.raw = ""  # before the filter
        self.tokens = 0
        self.prompt_tokens = 0
        self.first_token_s: float | None = None  # to the first words shown, waiting for others included
        self.seconds = 0.0
        self.finish: Finish = "stop"
        self._filter = StreamFilter(personas) if filtered else None
        self._asked = time.perf_counter()
        self._pieces: queue.SimpleQueue[str | BaseException | None] = queue.SimpleQueue()
        self._stopped = threading.Event()

    @property
    def removed(self) -> tuple[Removed, ...]:
        return self._filter.removed if self._filter else ()

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def stop(self) -> None:
        """The model stops at its next token; what is said so far stays."""
        self._stopped.set()

    def __iter__(self) -> Iterator[str]:
        try:
            while (piece := self._pieces.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                yield from self._let_go(piece, last=False)
            yield from self._let_go("", last=True)
        finally:
            self.stop()  # whoever stops listening needs no more tokens

    def _let_go(self, piece: str, last: bool) -> Iterator[str]:
        self.raw += piece
        shown = self._filter.feed(piece, last) if self._filter else piece
        if shown:
            self.first_token_s = self.first_token_s or time.perf_counter() - self._asked
            self.text += shown
            yield shown

    # What the engine's thread calls.

    def put(self, piece: str, tokens: int) -> None:
        self.tokens = tokens
        self._pieces.put(piece)

    def end(self, finish: Finish) -> None:
        self.finish = finish
        self.seconds = time.perf_counter() - self._asked
        self._pieces.put(None)

    def fail(self, error: BaseException) -> None:
        self._pieces.put(error)


class Engine:
    """Loads what is asked for when it is asked for; one base model at a time."""

    def __init__(self, models_dir: Path, personas: Personas) -> None:
        self.models_dir = models_dir
        self.personas = personas
        self.status = Status("", 0.0, key="idle")
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._count = threading.Lock()
        self._waiting = 0
        self._key: str | None = None  # of the base in memory
        self._base: Any = None
        self._tokenizer: PreTrainedTokenizerBase | None = None  # of whoever speaks
        self._tokenizers: dict[Path | None, PreTrainedTokenizerBase] = {}  # by adapter; None: the base's
        self._peft: Any = None
        self._adapters: list[str] = []  # on the base, least recently used first
        self._prefixes = PrefixCache()

    @property
    def waiting(self) -> int:
        """Questions asked and not yet answered to the end."""
        return self._waiting

    def load(self, adapter: Adapter) -> Future[None]:
        """Loads in the background; `status` tells how far it is, the future raises what went wrong."""
        return self._worker.submit(self._ready_to_speak, adapter)

    def answer(self, ask: Ask) -> Answer:
        """Asks, and returns at once; the answer's pieces come by iterating over it.

        Raises:
            EngineError: the conversation does not end with something said by the user.
        """
        if not ask.messages or ask.messages[-1]["role"] != "user" or not ask.messages[-1]["content"].strip():
            raise EngineError("a question must end with something that the user says")
        answer = Answer(self.personas, ask.filtered)
        with self._count:
            self._waiting += 1
        self._worker.submit(self._run, ask, answer)
        return answer

    def close(self) -> None:
        self._worker.shutdown(wait=True, cancel_futures=True)

    def _run(self, ask: Ask, answer: Answer) -> None:
        ended: Finish | BaseException = "stopped"
        try:
            if not answer.stopped:
                self._ready(ask.adapter)
                ended = self._generate(ask, answer)
        except BaseException as error:
            log.exception("an answer failed")
            ended = error
        with self._count:  # before the listener hears of the end, who may count then
            self._waiting -= 1
        if isinstance(ended, BaseException):
            answer.fail(ended)
        else:
            answer.end(ended)

    def _ready(self, adapter: Adapter) -> None:
        """`adapter` and its base in memory."""
        key = f"{adapter.base.model_dump_json()} {adapter.quantisation}"
        try:
            if key != self._key:
                self._load_base(adapter, key)
            if adapter.folder is not None and str(adapter.folder) not in self._adapters:
                self._load_adapter(adapter)
            self._tokenizer = self._tokenizers.get(adapter.folder, self._tokenizers[None])
        except BaseException as error:
            self.status = Status(str(error), 0.0, error=True)
            raise
        self.status = Status(adapter.title, 1.0)

    def _ready_to_speak(self, adapter: Adapter) -> None:
        """`adapter` in memory, and the system messages of all its voices read: no question has to wait for them."""
        self._ready(adapter)
        self.status = Status(adapter.title, 0.95, key="warming")
        with self._as(adapter) as model:
            for persona in (*self.personas.personas.values(), None):
                self._begin(model, adapter, persona)
        self.status = Status(adapter.title, 1.0)

    def _load_base(self, adapter: Adapter, key: str) -> None:
        from persona_dagster.models.base_model import for_asking, load_base

        self._key = self._base = self._tokenizer = self._peft = None
        self._adapters, self._tokenizers = [], {}
        self._prefixes.forget()
        gc.collect()  # the old base must be gone before a second comes
        self.status = Status(adapter.base.model, 0.1, key="loading_base")
        model, tokenizer = load_base(adapter.base, self.models_dir, adapter.quantisation)
        for_asking(model)
        self._base, self._tokenizer = model.eval(), tokenizer
        self._tokenizers[None] = tokenizer
        self.status = Status(adapter.base.model, 0.9, key="warming")
        self._warm_up()
        self._key = key

    def _warm_up(self) -> None:
        """One token: what a first call compiles and allocates is not paid for by the first question."""
        import torch

        assert self._base is not None and self._tokenizer is not None
        ids = self._tokenizer("你好", return_tensors="pt")["input_ids"].to(self._base.device)
        with torch.inference_mode():
            self._base.generate(ids, max_new_tokens=1, do_sample=False, top_p=None, temperature=None)

    def _load_adapter(self, adapter: Adapter) -> None:
        from peft import PeftModel

        from persona_dagster.models.base_model import adapter_tokenizer

        folder = adapter.folder
        assert folder is not None
        self.status = Status(adapter.title, 0.8, key="loading_adapter")
        if adapter.own_tokenizer:
            self._tokenizers[folder] = adapter_tokenizer(folder, adapter.base, self.models_dir)
        name = str(folder).replace(".", "_")  # a module's name may hold no dot
        if self._peft is None:
            self._peft = PeftModel.from_pretrained(self._base, str(folder), adapter_name=name).eval()
        else:
            if len(self._adapters) == MOST_ADAPTERS:
                self._peft.delete_adapter(self._adapters.pop(0).replace(".", "_"))
            self._peft.load_adapter(str(folder), adapter_name=name)
            self._peft.eval()
        self._adapters.append(str(folder))

    @contextlib.contextmanager
    def _as(self, adapter: Adapter) -> Iterator[Any]:
        """The model that speaks: the base with its adapters off, or with this one on."""
        if adapter.folder is None:
            with self._peft.disable_adapter() if self._peft is not None else contextlib.nullcontext():
                yield self._peft if self._peft is not None else self._base
            return
        folder = str(adapter.folder)
        self._adapters.remove(folder)
        self._adapters.append(folder)
        self._peft.set_adapter(folder.replace(".", "_"))
        yield self._peft

    def _generate(self, ask: Ask, answer: Answer) -> Finish:
        import torch
        from transformers import StoppingCriteria, StoppingCriteriaList

        from persona_dagster.models.base_model import stop_ids

        tokenizer, sampling = self._tokenizer, ask.sampling
        assert tokenizer is not None and self._base is not None
        prompt = self._prompt(ask)
        answer.prompt_tokens = len(prompt)
        ends = stop_ids(ask.adapter.base, tokenizer)
        streamer = _Streamer(tokenizer, answer, ends, ask.adapter.base.entry.next_turn)

        class Stopped(StoppingCriteria):
            def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
                return torch.full((input_ids.shape[0],), answer.stopped or streamer.ended, device=input_ids.device)

        arguments: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if sampling.temperature > 0:
            arguments |= {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        if sampling.seed is not None:
            torch.manual_seed(sampling.seed)
        ids = torch.tensor([prompt], device=self._base.device)
        with self._as(ask.adapter) as model, torch.inference_mode():
            cache = self._begin(model, ask.adapter, ask.persona, prompt)
            model.generate(
                past_key_values=cache,
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=sampling.max_new_tokens,
                repetition_penalty=sampling.repetition_penalty,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=ends,
                streamer=streamer,
                stopping_criteria=StoppingCriteriaList([Stopped()]),
                **arguments,
            )
        if answer.stopped:
            return "stopped"
        return "stop" if streamer.ended else "length"

    def _begin(self, model: Any, adapter: Adapter, persona: Persona | None, prompt: Sequence[int] | None = None) -> Any:
        """What this voice's prompts share, in a cache of their own; None where `prompt` does not begin so."""
        asked = [with_persona([{"role": "user", "content": text}], persona, tagged=True) for text in ("?", "好")]
        shared = shared_start(*map(self._render, asked))
        if prompt is not None and list(prompt[: len(shared)]) != shared:
            return None
        return self._prefixes.cache(model, (adapter.folder, persona and persona.tag), shared)

    def _prompt(self, ask: Ask) -> list[int]:
        """Token ids of the conversation in the format of training; the oldest turns go when it is too long."""
        assert self._tokenizer is not None and self._base is not None
        window = min(getattr(self._base.config, "max_position_embeddings", LONGEST_WINDOW), LONGEST_WINDOW)
        room = max(window - ask.sampling.max_new_tokens, window // 4)
        ids = self._render(with_persona(ask.messages, ask.persona, tagged=True), room)
        if len(ids) > room:
            raise EngineError(f"the window of {window} tokens is too small for this system message")
        return ids

    def _render(self, turns: list[Message], room: int = LONGEST_WINDOW) -> list[int]:
        assert self._tokenizer is not None
        text = prompt_text(turns, self._tokenizer, room)
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])


class _Streamer:
    """Tokens to whole characters, as `generate` makes them. Duck-typed: transformers calls `put` and `end`."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, answer: Answer, ends: Sequence[int], marks: Sequence[str] = ()
    ) -> None:
        self.tokenizer, self.answer, self.ends, self.marks = tokenizer, answer, set(ends), marks
        self.held = ""  # may be the beginning of a mark, at which the answer ends
        self.prompt = True
        self.ended = False
        self.count = 0
        self.ids: list[int] = []  # since the last whole character
        self.special = set(tokenizer.all_special_ids)

    def put(self, value: Any) -> None:
        if self.prompt:
            self.prompt = False
            return
        for token in value.reshape(-1).tolist():
            self.count += 1
            if token in self.ends:
                self.ended = True
            if token not in self.special:
                self.ids.append(token)
        text = self._text()
        # Half a character comes as U+FFFD; four bytes make any, so what stays broken longer is no character.
        if text.endswith(_CUT) and len(self.ids) < 8:
            text = ""
        if text:
            self.ids = []
        self.answer.put(self._before_mark(text), self.count)

    def end(self) -> None:
        rest = self._text().rstrip(_CUT) if self.ids else ""  # half a character at a length limit is none
        if rest := self._before_mark(rest) + self.held:
            self.answer.put(rest, self.count)

    def _before_mark(self, text: str) -> str:
        """What of the text so far can be shown: nothing from a mark on, and no end that may become one."""
        text, self.held = self.held + text, ""
        for mark in self.marks:
            before, found, _ = text.partition(mark)
            if found:
                self.ended = True
                return before
        longest = max((len(mark) - 1 for mark in self.marks), default=0)
        for size in range(min(longest, len(text)), 0, -1):
            if any(mark.startswith(text[-size:]) for mark in self.marks):
                self.held = text[-size:]
                return text[:-size]
        return text

    def _text(self) -> str:
        return str(self.tokenizer.decode(self.ids, clean_up_tokenization_spaces=False))
