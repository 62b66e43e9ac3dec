"""Where commands print to, and how they tell of an error of ours."""

from rich.console import Console

console = Console(soft_wrap=True, highlight=False)


def is_ours(error: Exception) -> bool:
    return type(error).__module__.startswith("persona_dagster.")


def told(error: Exception) -> str:
    """The message, which names the cure, and where the catalogue says more of its type."""
    name = type(error).__name__
    return f"{error}\n{name}: docs/errors.md#{name.lower()}" if is_ours(error) else str(error)
