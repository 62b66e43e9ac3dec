"""What the field uses: tasks of EleutherAI's lm-evaluation-harness for base and adapter, with its standard errors.

Optional (`pip install persona_dagster[harness]`), and most tasks come from the Hub: TMMLU+ and Belebele zh-TW for what
the base knew of Taiwan, a slice of MMLU and IFEval for the rest. Our own knowledge probes are a task of it too, which
is how our figures are held against the harness's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from persona_dagster.evaluation.prompts import Choice

TASKS = ("tmmluplus", "belebele_zho_Hant", "mmlu", "ifeval")
OWN = "persona_knowledge"


class HarnessError(RuntimeError):
    """The harness or a task that cannot be had here; the message names it and the cure."""


def own_task(probes: Sequence[Choice], prompt: str = "{}\n") -> dict[str, Any]:
    """The probes as a multiple-choice task of the harness: the sentence with the right answer against the others."""
    from datasets import Dataset

    rows = [
        {
            "query": prompt.format(probe.prompt),
            "choices": [probe.say.format(text) for text in (probe.answer, *probe.wrong)],
            "gold": 0,
        }
        for probe in probes
    ]
    return {
        "task": OWN,
        "custom_dataset": lambda **_: {"test": Dataset.from_list(rows)},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{query}}",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }


def run_tasks(
    model: Any, tokenizer: Any, tasks: Iterable[str | dict[str, Any]], *, limit: int | None = None, batch_size: int = 8
) -> dict[str, dict[str, float]]:
    """Metric and standard error by task, of a loaded model. Raises HarnessError without the package or the task."""
    try:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
    except ImportError as error:
        raise HarnessError("the harness is not installed: pip install 'persona_dagster[harness]'") from error
    wanted = list(tasks)
    try:
        found = simple_evaluate(
            HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size),
            tasks=wanted,
            limit=limit,
            bootstrap_iters=100,  # 0 leaves out the standard errors, those of a mean too
            log_samples=False,
        )
    except (OSError, ConnectionError, KeyError) as error:
        names = ", ".join(str(task if isinstance(task, str) else task["task"]) for task in wanted)
        raise HarnessError(f"{names}: cannot be had here ({error}); most tasks come from the Hub") from error
    results: dict[str, dict[str, Any]] = found["results"] if found else {}
    return {
        task: {name.split(",")[0]: float(value) for name, value in values.items() if isinstance(value, int | float)}
        for task, values in results.items()
    }
