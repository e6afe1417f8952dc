"""The one error a user of the command sees as a single line."""

from __future__ import annotations


class InputError(ValueError):
    """What was given cannot be used; the message says what was expected and what came."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
