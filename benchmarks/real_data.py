"""Where the real pages and corpora lie: beside the checkout, or in $PERSONA_SHARED. They come with no clone."""

from __future__ import annotations

import os
from pathlib import Path


def real_data(*parts: str) -> Path:
    """The file or folder of real data; without it the benchmark ends here, skipped and not failed."""
    path = Path(os.environ.get("PERSONA_SHARED", Path(__file__).resolve().parents[2] / "shared" / "data"), *parts)
    if not path.exists():
        print(f"skipped: no real data at {path}; set PERSONA_SHARED")
        raise SystemExit(0)
    return path
