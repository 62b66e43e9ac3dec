"""When a training has gone wrong: divergence, memorising, overfitting, collapse. Judges figures, touches no model."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["diverged", "memorising", "overfitting", "collapse"]

_WINDOW = 10  # logged steps behind a train loss: single batches of 8 rows swing by 0.3 nats
_RISE = 0.05  # nats above the best evaluation loss: under it is noise at 24 rows
_PATIENCE = 2  # evaluations in a row
_LOOPING = 0.5  # share of repeated 4-grams in samples; human answers lie under 0.1


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that a person ought to know. `fatal`: the weights are lost, whatever the recipe says."""

    kind: Kind
    step: int
    why: str

    @property
    def fatal(self) -> bool:
        return self.kind == "diverged"


class Watch:
    """Sees every figure of one training and names each kind of trouble once."""

    def __init__(self, healthy: tuple[float, float] | None) -> None:
        self.healthy = healthy
        self.troubles: list[Trouble] = []
        self._losses: deque[float] = deque(maxlen=_WINDOW)
        self._best = math.inf
        self._train_at_best = math.inf
        self._rises = 0

    @property
    def train_loss(self) -> float:
        """Mean over the last logged steps, nats a token."""
        return sum(self._losses) / len(self._losses) if self._losses else math.nan

    def stepped(self, step: int, loss: float, grad_norm: float) -> Trouble | None:
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            return self._say("diverged", step, f"loss {loss}, gradient norm {grad_norm}: lower training.learning_rate")
        self._losses.append(loss)
        if self.healthy and len(self._losses) == _WINDOW and self.train_loss < self.healthy[0]:
            low = self.healthy[0]
            return self._say(
                "memorising", step, f"train loss {self.train_loss:.3f} under the healthy {low}: fewer epochs"
            )
        return None

    def evaluated(self, step: int, loss: float) -> Trouble | None:
        if not math.isfinite(loss):
            return self._say("diverged", step, f"evaluation loss {loss}: lower training.learning_rate")
        if loss < self._best:
            self._best, self._train_at_best, self._rises = loss, self.train_loss, 0
            return None
        falling = self.train_loss < self._train_at_best
        self._rises = self._rises + 1 if falling and loss > self._best + _RISE else 0
        if self._rises < _PATIENCE:
            return None
        why = (
            f"evaluation loss {loss:.3f}, {loss - self._best:.3f} above its best, while train loss falls: fewer epochs"
        )
        return self._say("overfitting", step, why)

    def sampled(self, step: int, answers: Sequence[str]) -> Trouble | None:
        loops = repetition(answers)
        if loops > _LOOPING:
            return self._say("collapse", step, f"{loops:.0%} of the samples' 4-grams repeat: lower the learning rate")
        openings = Counter(answer.strip()[:12] for answer in answers)
        if len(answers) > 2 and max(openings.values()) == len(answers):
            return self._say("collapse", step, f"all {len(answers)} samples open alike")
        return None

    def _say(self, kind: Kind, step: int, why: str) -> Trouble | None:
        if any(trouble.kind == kind for trouble in self.troubles):
            return None
        self.troubles.append(Trouble(kind, step, why))
        return self.troubles[-1]


def repetition(answers: Sequence[str], n: int = 4) -> float:
    """Share of n-grams of characters that repeat an earlier one of the same answer, mean over the answers."""
    shares = []
    for answer in answers:
        grams = [answer[start : start + n] for start in range(len(answer) - n + 1)]
        shares.append(1 - len(set(grams)) / len(grams) if grams else 0.0)
    return sum(shares) / len(shares) if shares else 0.0
