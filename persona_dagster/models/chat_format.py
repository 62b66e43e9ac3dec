"""How a dialogue is put before a model: system message, neutral content, token ids and the loss mask.

The base model's own chat template renders; loss falls on the assistant's tokens and their end token alone.
Used by the mix (text), by the trainer (ids) and by generation (prompts), so that all three agree.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from persona_dagster.config.personas import Persona

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, str]  # {"role": system | user | assistant, "content": …}
Cut = Literal["none", "turns", "question", "answer"]

IGNORED = -100  # the label that torch's cross entropy leaves out

# Markers of the usual templates. A post that holds one could close the user's turn, so its brackets become
# full-width: still legible, no longer a token.
_TOKENS = (
    r"<\|[^<>|\n]{1,40}\|>|<｜[^<>\n]{1,40}｜>|\[/?INST\]|<</?SYS>>|</?s>|<(?:bos|eos|pad|unk)>"
    r"|<(?:start|end)_of_turn>|</?(?:think|tool_call|tool_response)>"
)
_HEADING = r"^(\s*)###(\s*(?:Instruction|Response|Input|System|User|Assistant|Human)\s*:)"
MARKERS = f"(?im){_TOKENS}|{_HEADING}"  # all that `neutralise` looks for, in a syntax that Rust reads too

_token = re.compile(_TOKENS, re.IGNORECASE)
_heading = re.compile(_HEADING, re.IGNORECASE | re.MULTILINE)
_FULL_WIDTH = str.maketrans("<>[]", "＜＞［］")
_SENTENCE_END = re.compile(r"[。！？!?…；;\n]+[」』”\"）)]*|\.(?=\s)")
_MIN_ANSWER = 8  # characters: a shorter stump teaches nothing but to stop


class TemplateError(ValueError):
    """The base model's tokenizer cannot render a chat; the message says why and what to choose instead."""


def neutralise(text: str) -> str:
    """`text` without anything that a chat template would take for structure. Idempotent."""
    text = _token.sub(lambda match: match[0].translate(_FULL_WIDTH), text)
    return _heading.sub(r"\1＃＃＃\2", text)


def system_message(persona: Persona) -> str:
    """The system message of a tagged row: `[tag] system prompt`."""
    return f"{persona.tag} {persona.system_prompt}"


def with_persona(messages: Sequence[Message], persona: Persona | None, tagged: bool) -> list[Message]:
    """The turns as the model gets them: neutral, led by the persona's system message when tagged.

    Untagged rows have no system message, so that the model learns to choose the persona from what is said.
    """
    turns = [{"role": turn["role"], "content": neutralise(turn["content"])} for turn in messages]
    if not tagged or persona is None:
        return turns
    return [{"role": "system", "content": system_message(persona)}, *turns]


@dataclass(frozen=True, slots=True)
class Encoded:
    """One row as token ids. `labels` repeats the ids of the assistant's tokens, and holds -100 elsewhere."""

    input_ids: list[int]
    labels: list[int]
    messages: list[Message]  # what the ids say, after any cut
    cut: Cut  # what was shortened to fit


def count_tokens(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The number of tokens of each text, without any that a template adds."""
    return [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]] if texts else []


def check_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises `TemplateError` unless the tokenizer renders a chat and ends each answer with a special token."""
    _render([{"role": "user", "content": "你好"}, {"role": "assistant", "content": "好"}], tokenizer)


def encode(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded | None:
    """`messages` as ids and labels of at most `max_length` tokens; None when no useful answer fits.

    Too long a row loses its last exchanges first, then the end of its question, then the end of its answer:
    at the end of a sentence, between characters, and always with the template's end token after it.
    """
    turns = [_safe(message, tokenizer) for message in messages]
    if not turns or turns[-1]["role"] != "assistant":
        raise ValueError("a training row ends with an answer of the assistant")
    cut: Cut = "none"
    ids, labels = _render(turns, tokenizer)
    while len(ids) > max_length and sum(turn["role"] == "assistant" for turn in turns) > 1:
        turns, cut = turns[:-2], "turns"
        ids, labels = _render(turns, tokenizer)
    if len(ids) <= max_length:
        return Encoded(ids, labels, turns, cut)
    return _shorten(turns, len(ids), tokenizer, max_length)


def prompt_text(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, max_length: int) -> str:
    """`messages`, ending with a question, as the text that asks for its answer, of at most `max_length` tokens.

    The oldest exchanges go first, then, as `encode` cuts, the end of the question: a model is asked in the shape
    that it was trained on. The system message with its tag stays.
    """
    system = [turn for turn in messages if turn["role"] == "system"]
    turns = [_safe(turn, tokenizer) for turn in messages if turn["role"] != "system"]
    text = _template([*system, *turns], tokenizer, ask=True)
    while (length := len(_ids(text, tokenizer))) > max_length and len(turns) > 1:
        turns = turns[2:]
        text = _template([*system, *turns], tokenizer, ask=True)
    if length > max_length:
        asked = turns[-1]["content"]
        room = max(_MIN_ANSWER, max_length - (length - len(_ids(asked, tokenizer))))
        text = _template([*system, {**turns[-1], "content": _fit(asked, room, tokenizer)}], tokenizer, ask=True)
    return text


def _safe(message: Message, tokenizer: PreTrainedTokenizerBase) -> Message:
    """The message stripped and neutral, this tokenizer's own special tokens included."""
    content = neutralise(message["content"].strip())
    for token in tokenizer.all_special_tokens:
        if token in content:
            content = content.replace(token, f"{token[:1]} {token[1:]}")
    return {"role": message["role"], "content": content}


def _ids(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []


def _template(turns: Sequence[Message], tokenizer: PreTrainedTokenizerBase, ask: bool = False) -> str:
    return str(tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=ask))


def _render(turns: Sequence[Message], tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Ids and labels. Each prompt is tokenised up to its answer, as it will be at inference; then the answer."""
    if not getattr(tokenizer, "chat_template", None):
        name = getattr(tokenizer, "name_or_path", "the base model")
        raise TemplateError(
            f"{name} has no chat template: choose its instruct version, or give its entry a chat_template"
        )
    ids: list[int] = []
    labels: list[int] = []
    done = ""
    for position, turn in enumerate(turns):
        if turn["role"] != "assistant":
            continue
        prompt = _template(turns[:position], tokenizer, ask=True)
        whole = _template(turns[: position + 1], tokenizer)
        if not (prompt.startswith(done) and whole.startswith(prompt + turn["content"])):
            raise TemplateError("the chat template changes earlier turns as a chat grows: it cannot be masked by turn")
        tail = _ids(whole[len(prompt) + len(turn["content"]) :], tokenizer)
        if not tail or tail[0] not in tokenizer.all_special_ids:
            raise TemplateError("the chat template ends an answer without a special token: the model could never stop")
        asked = _ids(prompt[len(done) :], tokenizer)
        answer = [*_ids(turn["content"], tokenizer), tail[0]]
        rest = tail[1:]
        ids += asked + answer + rest
        labels += [IGNORED] * len(asked) + answer + [IGNORED] * len(rest)
        done = whole
    return ids, labels


def _shorten(turns: list[Message], length: int, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Encoded | None:
    """One exchange cut to fit: the answer keeps at least two thirds of the room that the template leaves."""
    *before, question, answer = turns
    asked, answered = (len(_ids(turn["content"], tokenizer)) for turn in (question, answer))
    room = max_length - (length - asked - answered)
    cut: Cut = "question"
    answer_text = answer["content"]
    answer_room = max(room * 2 // 3, room - asked)
    if answered > answer_room:
        cut = "answer"
        answer_text = _to_sentence_end(_fit(answer_text, answer_room, tokenizer))
        answered = len(_ids(answer_text, tokenizer))
    question_text = _fit(question["content"], room - answered, tokenizer)
    if len(answer_text) < _MIN_ANSWER or not question_text:
        return None
    short = [*before, {**question, "content": question_text}, {**answer, "content": answer_text}]
    ids, labels = _render(short, tokenizer)
    # Merges at the new borders may cost a token or two more than counted.
    if len(ids) > max_length:
        return None if room <= 0 else _shorten(short, len(ids) + 1, tokenizer, max_length)
    return Encoded(ids, labels, short, cut)


def _fit(text: str, room: int, tokenizer: PreTrainedTokenizerBase) -> str:
    """The longest head of `text`, in whole characters, of at most `room` tokens."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(_ids(text[:middle], tokenizer)) <= room else (low, middle - 1)
    return text[:low].strip()


def _to_sentence_end(text: str) -> str:
    """`text` up to its last sentence end; the text itself where it holds none."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    return text[: ends[-1]].strip() if ends else text
