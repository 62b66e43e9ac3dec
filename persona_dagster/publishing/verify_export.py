"""Does an exported model say what the model says that it was made of? Measured on that model's own answers.

The reference answers probes of every persona, greedily; the export then reads the same tokens, and its
distributions are held against the reference's, token by token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from persona_dagster.config.personas import Personas
from persona_dagster.models.chat_format import Message, with_persona

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ANSWER_TOKENS = 16  # a probe: with six probes 96 positions, in seconds on two cores

# What was said, read by another model: log-probabilities (answer tokens, vocabulary), one tensor an answer.
Reader = Callable[[Sequence["ReferenceAnswer"]], list["Tensor"]]


class ReferenceAnswer(NamedTuple):
    """A rendered prompt and the reference's answer to it: `ids[start:]` is the answer."""

    prompt: str
    ids: list[int]
    start: int
    log_probabilities: Tensor  # (answer tokens, vocabulary), float32


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of an export with its reference. Two equal models agree in all tokens, with a divergence of 0."""

    positions: int
    same_token: float  # share of positions where both find the same token likeliest
    divergence: float  # mean Kullback-Leibler divergence from the reference, nats a token

    def __str__(self) -> str:
        return (
            f"likeliest token the same at {self.same_token:.1%} of {self.positions} positions, "
            f"divergence {self.divergence:.2g} nats a token"
        )


def probes(personas: Personas) -> list[list[Message]]:
    """A probe of each persona, asked with its system message and without."""
    asked: list[list[Message]] = []
    for persona in personas.personas.values():
        for text in persona.probes[:1]:
            question = [{"role": "user", "content": text}]
            asked += [with_persona(question, persona, tagged=True), with_persona(question, None, tagged=False)]
    return asked


def speak(
    model: Any, tokenizer: PreTrainedTokenizerBase, conversations: Sequence[list[Message]]
) -> list[ReferenceAnswer]:
    """The reference's own greedy answers, and how likely it found every token in their places."""
    import torch

    said = []
    for conversation in conversations:
        prompt = str(tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True))
        asked = list(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        given = torch.tensor([asked], device=model.device)
        with torch.inference_mode():
            whole: Any = model.generate(
                input_ids=given,
                attention_mask=torch.ones_like(given),
                max_new_tokens=ANSWER_TOKENS,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=tokenizer.pad_token_id,
            )
        empty = ReferenceAnswer(prompt, whole[0].tolist(), len(asked), torch.empty(0))
        said.append(empty._replace(log_probabilities=reader(model)([empty])[0]))
    return said


def reader(model: PreTrainedModel) -> Reader:
    """Reads with a model of transformers."""
    import torch

    def read(said: Sequence[ReferenceAnswer]) -> list[Tensor]:
        with torch.inference_mode():
            logits = [model(torch.tensor([one.ids], device=model.device)).logits[0] for one in said]
        return [own[one.start - 1 : -1].float().log_softmax(-1).cpu() for own, one in zip(logits, said, strict=True)]

    return read


def agree(said: Sequence[ReferenceAnswer], read: Reader) -> Agreement:
    """How far the model behind `read` agrees with what the reference said."""
    import torch

    reference = torch.cat([one.log_probabilities for one in said])
    other = torch.cat(read(said))
    same = (reference.argmax(-1) == other.argmax(-1)).float().mean()
    divergence = (reference.exp() * (reference - other)).nan_to_num(0.0).sum(-1).mean()
    return Agreement(len(reference), float(same), max(0.0, float(divergence)))
