"""Prints the pinned versions of this project's requirements and all that they need, as installed in .venv."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

EXTRAS = ("train", "chat", "dev", "ray")


def closure(root: str) -> dict[str, str]:
    """name -> version of everything that `root` with its extras needs here; what is not installed is left out."""
    pinned: dict[str, str] = {}
    waiting: list[tuple[str, frozenset[str]]] = [(root, frozenset(EXTRAS))]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            found = distribution(name)
        except PackageNotFoundError:
            print(f"not installed, not pinned: {name}", file=sys.stderr)
            continue
        if name != root:
            pinned[canonicalize_name(name)] = found.version.split("+")[0]
        for line in found.requires or []:
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in (extras or {""})):
                waiting.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return pinned


if __name__ == "__main__":
    for name, version in sorted(closure("persona_dagster").items()):
        print(f"{name}=={version}")
