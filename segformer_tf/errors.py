"""The error that a user of the command sees as a single line."""

from __future__ import annotations


class InputError(ValueError):
    """An input cannot be used; the message gives the expected one and the received one."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
