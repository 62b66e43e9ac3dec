"""Where commands print to."""

from rich.console import Console

console = Console(soft_wrap=True, highlight=False)
