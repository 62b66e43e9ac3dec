"""What all pages look like: data cards, the funnel, and (with a style of their own on top) the reports."""

from __future__ import annotations

import html
from pathlib import Path


def style() -> str:
    return Path(__file__).with_name("page.css").read_text(encoding="utf-8")


def page(title: str, body: str, kicker: str = "") -> str:
    """A self-contained page around `body`, which is HTML; it loads nothing and runs nothing."""
    shown = html.escape(title)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        'img-src data:">'
        f"<title>{html.escape(kicker)}{': ' if kicker else ''}{shown}</title><style>{style()}</style></head>\n<body>"
        f'<header><p class="kicker">{html.escape(kicker)}</p><h1>{shown}</h1></header>\n'
        f'<main class="card">{body}</main></body></html>\n'
    )
