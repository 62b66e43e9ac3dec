"""Pages as browsers, editors and web archives keep them, turned back into what the site sent.

For files that people hand in; what the crawl fetches never passes here.
"""

from __future__ import annotations

import email
import email.policy
import re
import zlib
from codecs import BOM_UTF16_BE, BOM_UTF16_LE

from persona_dagster.sites.parser_results import MAX_BODY

MIME = re.compile(
    rb"(?:[A-Za-z-]+: [^\r\n]*\r?\n(?:[ \t][^\r\n]*\r?\n)*)*Content-Type: multipart/related", re.IGNORECASE
)
SAVED_AS = (
    re.compile(rb'<link rel="canonical" href="(https?://[^"]+)"'),
    re.compile(rb'<meta property="(?:og|al:android):url" content="(https?://[^"]+)"'),
    re.compile(rb"^Snapshot-Content-Location: (https?://\S+)", re.MULTILINE),
    re.compile(rb"<!-- saved from url=\(\d+\)(https?://\S+) -->"),
)
COMMENTS = re.compile(rb"\s*(?:<!--(?:(?!-->).)*-->\s*)+", re.DOTALL)


def saved_url(body: bytes) -> str:
    """The address that a saved page gives for itself, or nothing."""
    head = body[: 1 << 18].replace(b"&#064;", b"@")
    found = next((match for pattern in SAVED_AS if (match := pattern.search(head))), None)
    return found[1].decode("utf-8", "replace") if found else ""


def unwrap(body: bytes) -> bytes:
    """UTF-8 with `\\n` line ends, out of gzip, MHTML, UTF-16, Windows line ends, and comments behind `</html>`."""
    if body.startswith(b"\x1f\x8b"):
        body = _inflated(body)
    if MIME.match(body[:4096]):
        body = _html_part(body)
    if body.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        body = _recoded(body)
    if not body[:200].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return body
    body = body.replace(b"\r\n", b"\n")
    end = body.rfind(b"</html>") + len(b"</html>")
    # The Wayback Machine signs its copies there.
    return body[:end] + b"\n" if COMMENTS.fullmatch(body, end) else body


def _inflated(body: bytes) -> bytes:
    try:
        return zlib.decompressobj(31).decompress(body, MAX_BODY + 1)
    except zlib.error:
        return body  # the parser says what it is not


def _recoded(body: bytes) -> bytes:
    try:
        return body.decode("utf-16").encode()
    except UnicodeDecodeError:
        return body


def _html_part(body: bytes) -> bytes:
    """The page of a browser's single-file archive; its pictures are other parts."""
    message = email.message_from_bytes(body, policy=email.policy.default)
    page = next((part for part in message.walk() if part.get_content_type() == "text/html"), None)
    content = page.get_payload(decode=True) if page else None
    return content if isinstance(content, bytes) else body
