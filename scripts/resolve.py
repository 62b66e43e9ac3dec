"""Resolves the dependencies for versions of Python that are not at hand: `python scripts/resolve.py 3.12 3.13`.

pip reads the indexes and downloads no more than it needs to choose; nothing is installed. Only wheels count: a package
that has to be built would not install where no compiler is.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = str(ROOT / "constraints.txt")  # the pinned versions are those that every Python gets
EXTRAS = ("train", "chat", "docs", "s3", "gcs", "postgres", "tensorboard", "harness", "ray")


def resolve(version: str, wanted: list[str]) -> dict[str, str]:
    """Name and version of all that pip would install. Raises CalledProcessError; pip says why on stderr."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed"]
        command += [
            "--report",
            "-",
            "--target",
            folder,
            "--only-binary=:all:",
            "--python-version",
            version,
            "-c",
            CONSTRAINTS,
            *wanted,
        ]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = (one["metadata"] for one in json.loads(done.stdout)["install"])
    return {one["name"]: one["version"] for one in found}


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for version in sys.argv[1:]:
        failed = []
        for name, wanted in {"": [], **{extra: project["optional-dependencies"][extra] for extra in EXTRAS}}.items():
            try:
                found = resolve(version, [*project["dependencies"], *wanted])
            except subprocess.CalledProcessError:
                failed.append(name or "core")
                continue
            print(f"{version} {name or 'core'}: {len(found)} packages, dagster {found.get('dagster')}", flush=True)
        if failed:
            raise SystemExit(f"{version}: not resolved: {', '.join(failed)}")


if __name__ == "__main__":
    main()
