"""The cleaning rules as data.

`rule_engine.py` runs them with Polars over columns; a test holds that to what Python's `re` gives, byte for byte.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import yaml

from persona_dagster.digest import sha256, text_digest

HERE = Path(__file__).parent
SOURCES = ("ptt", "dcard", "threads", "chat", "notes", "capybara")
FORUM = ("ptt", "dcard", "threads", "chat")
GROUPS = {"all": SOURCES, "forum": FORUM}

# What the rules see of a row's kind: every kind of records.Kind is one of three.
KINDS = {
    "post": "post",
    "post_flat": "post",
    "post_clean": "post",
    "comment": "comment",
    "reply": "comment",
    "title": "title",
}

# A text that still changes after so many passes is no prose: it is emptied and flagged `unstable`, so that
# cleaning stays linear and idempotent whatever comes in. Real rows settle in two passes (three: 1 in 3,000).
MAX_PASSES = 8

# What decides the outcome of cleaning, besides the rule list.
CODE = (
    "rules.py",
    "rule_engine.py",
    "../sites/ptt/quotes_and_line_wrapping.py",
    "../sites/ptt/merge_cut_pushes.py",
    "privacy.py",
    *sorted(f"personal_data/{path.name}" for path in (HERE / "personal_data").glob("*.*")),
    "common_words.py",
    "language.py",
    "quality.py",
    "sql/quality.sql",
    "sql/repeated.sql",
    "sql/labels.sql",
    "clean.py",
    "canonical_names.py",
)

FORBIDDEN = re.compile(r"\(\?[=!<]|\\[dDwWsS1-9]|(?<!\\)\\B")


class RuleError(ValueError):
    """A rule that the two engines would not read alike."""


def alphanumeric_fold() -> dict[str, str]:
    """Full-width and mathematical letters and digits to ASCII. NFKC on the text would also fold ，！？ away."""
    blocks = (*range(0xFF10, 0xFF1A), *range(0xFF21, 0xFF3B), *range(0xFF41, 0xFF5B), *range(0x1D400, 0x1D800))
    folded = {chr(code): unicodedata.normalize("NFKC", chr(code)) for code in blocks}
    return {char: plain for char, plain in folded.items() if len(plain) == 1 and plain.isascii() and plain.isalnum()}


@dataclass(frozen=True)
class CleaningRule:
    """One rewriting: `pattern` becomes `replace`, or a character table folds."""

    name: str
    sources: tuple[str, ...]
    kinds: tuple[str, ...]
    why: str
    pattern: str = ""
    replace: str = ""
    fold: str | None = None

    @property
    def rust(self) -> str:
        """For Polars, whose `\\b` counts Han characters as word characters unless told otherwise."""
        return self.pattern.replace(r"\b", r"(?-u:\b)")

    @cached_property
    def python(self) -> re.Pattern[str]:
        # Inline flags must lead in Python; under re.MULTILINE the dialect's ^ and $ mean the same in both.
        pattern = (
            self.pattern.replace("(?m)", "").replace("(?m:^)", "^").replace(r"\b", r"(?a:\b)").replace(r"\z", r"\Z")
        )
        return re.compile(pattern, re.MULTILINE if "(?m" in self.pattern else 0)

    @cached_property
    def python_replace(self) -> str:
        return re.sub(r"\$\{(\d)\}", r"\\\1", self.replace)

    @cached_property
    def table(self) -> dict[str, str]:
        return alphanumeric_fold() if self.fold else {}

    def apply(self, text: str) -> str:
        """The text after this rule, by Python."""
        if self.fold:
            return text.translate(_translation()) if not text.isascii() else text
        return self.python.sub(self.python_replace, text)

    def concerns(self, source: str, kind: str) -> bool:
        return source in self.sources and kind in self.kinds


@cache
def _translation() -> dict[int, str]:
    return str.maketrans(alphanumeric_fold())


def _rule(entry: dict) -> CleaningRule:
    sources = tuple(source for name in entry["sources"] for source in GROUPS.get(name, (name,)))
    pattern = entry.get("pattern", "").replace(r"(?-u:\b)", r"\b")
    if FORBIDDEN.search(pattern):
        raise RuleError(
            f"rules.yaml, rule {entry['name']}: {pattern!r} leaves the dialect described at the top of the file"
        )
    if unknown := set(sources) - set(SOURCES):
        raise RuleError(f"rules.yaml, rule {entry['name']}: unknown source {', '.join(sorted(unknown))}")
    return CleaningRule(
        name=entry["name"],
        sources=sources,
        kinds=tuple(entry.get("kinds", ("post", "comment", "title"))),
        why=entry["why"],
        pattern=pattern,
        replace=entry.get("replace", ""),
        fold=entry.get("fold"),
    )


@cache
def load_rules() -> tuple[CleaningRule, ...]:
    """The packaged rules, in the order in which they run."""
    entries = yaml.safe_load((HERE / "rules.yaml").read_text(encoding="utf-8"))
    rules = tuple(_rule(entry) for entry in entries)
    if len({rule.name for rule in rules}) < len(rules):
        raise RuleError("rules.yaml: two rules of one name")
    return rules


@cache
def rules_for(source: str, kind: str) -> tuple[CleaningRule, ...]:
    """The rules that concern a row of this source and kind (any of records.Kind)."""
    return tuple(rule for rule in load_rules() if rule.concerns(source, KINDS[kind]))


def rules_version() -> str:
    """Hash of everything that decides what cleaning yields: the `code_version` of the corpus assets."""
    return text_digest(*(sha256((HERE / name).read_bytes()) for name in ("rules.yaml", *CODE)))[:16]
