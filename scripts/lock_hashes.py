"""Writes locks/<name>.txt: every package of an environment with the sha256 of the files that pip would take, for
`pip install --require-hashes -r`. An environment is a set of extras, resolved within constraints.txt for this machine's
Python and platform. PyPI's torch brings CUDA; without it stand `cpu` and what needs no torch, and those are resolved as
pip is set up here (`cpu` wants an index that has `torch+cpu`).

    python scripts/lock_hashes.py core chat
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = {
    "core": "",
    "chat": "[chat]",
    "cpu": "[train,chat,docs,dev]",
    "gpu": "[train,chat,gpu]",
    "cluster": "[train,ray,s3,postgres]",
}
CUDA = ("gpu", "cluster")
OWN_SETTINGS = ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL", "PIP_CONSTRAINT")


def resolved(extras: str, *, cuda: bool) -> list[dict]:
    """What pip would install into an empty environment, from its own report."""
    clean = {name: value for name, value in os.environ.items() if name not in OWN_SETTINGS}
    environment = clean | {"PIP_CONFIG_FILE": os.devnull} if cuda else None
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"]
    found = subprocess.run(
        [*command, "-c", str(ROOT / "constraints.txt"), f"{ROOT}{extras}"],
        check=True, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    return json.loads(found.stdout)["install"]


def lines(packages: list[dict]) -> list[str]:
    made = []
    for package in packages:
        name, version = package["metadata"]["name"], package["metadata"]["version"]
        digest = package["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256")
        if digest:  # not the project itself
            made.append(f"{name.lower().replace('_', '-')}=={version} --hash=sha256:{digest}")
    return sorted(made)


def main(names: list[str]) -> None:
    folder = ROOT / "locks"
    folder.mkdir(exist_ok=True)
    for name in names or [*ENVIRONMENTS]:
        packages = lines(resolved(ENVIRONMENTS[name], cuda=name in CUDA))
        head = f"# The environment `{name}` ({ENVIRONMENTS[name] or 'no extras'}), by scripts/lock_hashes.py"
        (folder / f"{name}.txt").write_text("\n".join([head, *packages]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
