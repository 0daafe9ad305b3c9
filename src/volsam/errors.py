"""The one error a user is meant to read, and how faults of a file become its sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

_KIND = re.compile(
    r"constrained-\w+|function-.*|(list|dict|tuple|set|literal|nullable)\[.*\]|str|int|float|bool"
)


class VolsamError(Exception):
    """What is wrong, where, and what to do about it, in one sentence.

    Raised for everything a user can cause or mend (input, settings, disk, models). The command
    line prints it without a traceback and exits with 1; any other exception is a fault of ours.
    """


def fault(
    error: ValidationError, where: str = "the configuration", page: str = "config/README.md"
) -> str:
    """The first fault that pydantic found, as one sentence with its key."""
    first = _clearest(error.errors(include_url=False))
    key = ".".join(_key(first))
    message = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"Key {key} is unknown; see {page} for the keys there are."
    if first["type"] == "missing":
        return f"Key {key} is missing; add it ({page} says what it means)."
    given = first.get("input")
    shown = f" (given: {given!r})" if isinstance(given, (str, int, float, bool)) else ""
    if not key:
        return f"{where[0].upper() + where[1:]} is wrong: {message[0].lower() + message[1:]}."
    return f"Key {key} is wrong{shown}: {message[0].lower() + message[1:]}; mend it in {where}."


def _clearest(errors: Sequence[ErrorDetails]) -> ErrorDetails:
    """The first fault; of a value that may be of several kinds that of the kind it fits furthest."""
    first = _key(errors[0])
    same = [one for one in errors if _key(one)[: len(first)] == first]
    deepest = max(len(_key(one)) for one in same)
    same = [one for one in same if len(_key(one)) == deepest]
    # A key that is misspelt is missing, too; what is written there is easier to find.
    return next((one for one in same if one["type"] == "extra_forbidden"), same[0])


def _key(error: ErrorDetails) -> list[str]:
    """Where a fault is, without pydantic's names of the kinds that a value may be of."""
    return [str(part) for part in error["loc"] if not _KIND.fullmatch(str(part))]
