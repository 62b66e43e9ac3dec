"""The typed boundary: what a site sends as JSON, checked field by field before anything looks at it.

Each site declares the fields that it reads as a `Sent` model; fields that nobody reads may hold anything. Whatever is
not of its type, or no database could hold, is a `MalformedError` that names the field.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from typing import Annotated, Any, ParamSpec, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from persona_dagster.sites.parser_results import MalformedError, Parsed, incomplete

EARLIEST, LATEST = datetime(1990, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
MOST_DIGITS = 19  # of a number, as a database keeps it
SURROGATE = re.compile(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
FAULT = "parser_fault"  # the flag of a capture on which a parser failed: an error of ours, and none of the site's

M = TypeVar("M", bound="Sent")
P = ParamSpec("P")


class Sent(BaseModel):
    """An object of a site's JSON: no value is converted, and fields that are not declared are not looked at."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


def moment(text: object) -> datetime:
    """An ISO time as UTC, which it is where it names no zone. Raises `ValueError`."""
    try:
        at = datetime.fromisoformat(text) if isinstance(text, str) else None
        at = (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC) if at else None
    except OverflowError:
        at = None
    if at is None or not EARLIEST <= at < LATEST:
        raise ValueError("no time between 1990 and 2100")
    return at


Count = Annotated[int, Field(ge=-(2**53), le=2**53)]
Moment = Annotated[datetime, BeforeValidator(moment)]
Seconds = Annotated[int, Field(gt=0, lt=int(LATEST.timestamp()))]  # unix time
Digits = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,20}$")]
Name = Annotated[str, StringConstraints(min_length=1)]


def sent(model: type[M], value: object, what: str) -> M:
    """`value` as `model`. Raises `MalformedError`: "a post whose likeCount …"; its texts are not quoted."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "shape"
        raise MalformedError(f"{what} whose {field} is wrong: {first['msg']}"[:300]) from None


def load_json(text: str) -> Any:
    """JSON in which no object names a key twice: that is how two spliced rows look."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            raise MalformedError("an object names a key twice")
        return value

    def refuse(constant: str) -> None:
        raise MalformedError(f"{constant} is no JSON")

    def whole_number(digits: str) -> int:
        if len(digits) > MOST_DIGITS:
            raise MalformedError(f"a number of {len(digits)} digits")
        return int(digits)

    try:
        value = json.loads(text, object_pairs_hook=unique, parse_constant=refuse, parse_int=whole_number)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"no JSON: {error}"[:300]) from error
    if SURROGATE.search(text):
        with depth_bounded():
            if found := _lone_surrogate(value):
                raise MalformedError(f"half a character (\\u{ord(found):04x}) in a text")
    return value


def _lone_surrogate(value: Any) -> str | None:
    """The first half of a pair that stands alone: no UTF-8 can hold it, and so no table."""
    if isinstance(value, str):
        return next((character for character in value if "\ud800" <= character <= "\udfff"), None)
    inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return next((found for item in inner if (found := _lone_surrogate(item))), None)


@contextmanager
def depth_bounded() -> Iterator[None]:
    """For walks over decoded JSON: one that nests too deep is malformed."""
    try:
        yield
    except RecursionError as error:
        raise MalformedError("nested too deep") from error


def guarded(parse: Callable[P, Parsed]) -> Callable[P, Parsed]:
    """A parser whose every failure is an outcome, so that one capture never stops a board: what it did not foresee is
    flagged as a fault of its own."""

    @wraps(parse)
    def whole(*arguments: P.args, **named: P.kwargs) -> Parsed:
        try:
            with depth_bounded():
                return parse(*arguments, **named)
        except MalformedError as error:
            return incomplete(str(error))
        except Exception as error:  # the edge of what others send
            return incomplete(f"the parser failed: {type(error).__name__}: {error}"[:300], flags=[FAULT])

    return whole
