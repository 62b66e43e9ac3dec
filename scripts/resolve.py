"""Resolves the dependencies for versions of Python that are not at hand: `python scripts/resolve.py 3.12 3.13`.

By uv (`pip install uv`), which reads the packages' metadata and installs nothing.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def resolve(version: str, extra: str | None) -> list[str]:
    """`name==version` of all that would be installed, with the pins of constraints.txt. Raises CalledProcessError; uv
    says why on stderr."""
    command = ["uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", f"--python-version={version}"]
    command += [f"--constraint={ROOT / 'constraints.txt'}", *([f"--extra={extra}"] if extra else [])]
    done = subprocess.run(
        [*command, str(ROOT / "pyproject.toml")], check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    return done.stdout.split()


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for version in sys.argv[1:]:
        failed = []
        for extra in (None, *project["optional-dependencies"]):
            try:
                print(f"{version} {extra or 'core'}: {len(resolve(version, extra))} packages", flush=True)
            except subprocess.CalledProcessError:
                failed.append(extra or "core")
        if failed:
            raise SystemExit(f"{version}: not resolved: {', '.join(failed)}")


if __name__ == "__main__":
    main()
