"""Opens where archive and mixes are kept: a folder of this machine, or any fsspec URL.

What a URL needs beside the core is named here, so that an error can say what to install.
"""

from __future__ import annotations

from pathlib import Path

import fsspec
from fsspec import AbstractFileSystem

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "hf": "train"}  # of pyproject.toml, by protocol


class StoreError(ValueError):
    """A URL that leads nowhere from here; the message names it and the cure."""


def open_store(place: str | Path) -> tuple[AbstractFileSystem, str]:
    """The file system of a path or URL, and the root in it, without a slash at its end. Asks the store for nothing.

    Raises `StoreError` where fsspec knows no such protocol, or its package is not installed.
    """
    url = str(place)
    protocol = url.partition("://")[0]
    try:
        filesystem, root = fsspec.core.url_to_fs(url)
    except ImportError as error:
        extra = EXTRAS.get(protocol)
        cure = f"pip install '.[{extra}]'" if extra else "install the package it names"
        raise StoreError(f"{url}: {error}: {cure}") from error
    except ValueError as error:
        raise StoreError(f"{url}: {error}; known are a path, {', '.join(f'{name}://' for name in EXTRAS)}") from error
    return filesystem, root.rstrip("/") or root
