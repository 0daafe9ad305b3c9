"""The one error a user is meant to read, and how faults of a file become its sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class VolsamError(Exception):
    """What is wrong, where, and what to do about it, in one sentence.

    Raised for everything a user can cause or mend (input, settings, disk, models). The command
    line prints it without a traceback and exits with 1; any other exception is a fault of ours.
    """


def fault(
    error: ValidationError, where: str = "the configuration", page: str = "config/README.md"
) -> str:
    """The first fault that pydantic found, as one sentence with its key."""
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"]) or where
    message = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"Key {key} is unknown; see {page} for the keys there are."
    if first["type"] == "missing":
        return f"Key {key} is missing; add it ({page} says what it means)."
    given = first.get("input")
    shown = f" (given: {given!r})" if isinstance(given, (str, int, float, bool)) else ""
    return f"Key {key} is wrong{shown}: {message[0].lower() + message[1:]}; mend it in {where}."
