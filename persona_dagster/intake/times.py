"""Times in every spelling that dumps have → UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

TAIPEI = ZoneInfo("Asia/Taipei")
CTIME = "%a %b %d %H:%M:%S %Y"
NOON = {"上午": 0, "下午": 12, "am": 0, "pm": 12, "凌晨": 0, "早上": 0, "中午": 12, "晚上": 12}
LOOSE_TIME = re.compile(
    r"(\d{4}) ?[-/.年] ?(\d\d?) ?[-/.月] ?(\d\d?) ?日?(?:[（(].{1,3}[)）])?"
    r"(?:[T ,]*(?P<half>上午|下午|凌晨|早上|中午|晚上)? ?(\d\d?):(\d\d)(?::(\d\d)(?:\.\d+)?)?"
    r"(?: ?(?P<end>[AaPp][Mm]))?)?$"
)
PUSH_TIME = re.compile(r"(?:\S+ )?(\d\d?)/(\d\d?)(?: (\d\d):(\d\d))?$")  # no year; an address may stand before it


def moment(text: str | None, near: datetime | None = None, zone: tzinfo = TAIPEI) -> datetime | None:
    """UTC; a time without a zone is `zone`'s. One without a year needs `near`, before which it cannot lie."""
    if not text:
        return None
    text = text.strip()
    at: datetime | None
    try:
        # Ten digits and up are unix seconds or milliseconds; fromisoformat would take eight for a date.
        number = float(text) if text[:10].isdecimal() and len(text) >= 10 else None
        if number is not None:
            return datetime.fromtimestamp(number / 1000 if number > 1e11 else number, UTC)
        at = datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError):
        at = _odd_time(text, near, zone)
    if at is None:
        return None
    try:
        return (at if at.tzinfo else at.replace(tzinfo=zone)).astimezone(UTC)
    except OverflowError:  # year 1 or 9999 at a border
        return None


def _odd_time(text: str, near: datetime | None, zone: tzinfo) -> datetime | None:
    try:
        if match := LOOSE_TIME.match(text):
            year, month, day, hour, minute, second = (int(match[part] or 0) for part in (1, 2, 3, 5, 6, 7))
            half = match["half"] or (match["end"] or "").lower()
            if half and NOON[half] != (12 if hour == 12 else 0) and hour <= 12:
                hour = hour % 12 + NOON[half]
            elif half in ("上午", "凌晨", "am") and hour == 12:
                hour = 0
            return datetime(year, month, day, hour, minute, second)
        if (match := PUSH_TIME.match(text)) and near:
            month, day, hour, minute = (int(part or 0) for part in match.groups())
            start = near.astimezone(zone)
            at = datetime(start.year, month, day, hour, minute, tzinfo=zone)
            # Pushes follow their article: what seems a day before it came in the next year.
            return at if (start - at).days < 1 else at.replace(year=start.year + 1)
        return datetime.strptime(" ".join(text.split()), CTIME) if text[:1].isalpha() else None
    except ValueError:
        return None
