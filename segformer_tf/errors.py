"""The error that a user of the command sees as a single line."""

from __future__ import annotations


class InputError(ValueError):
    """An input cannot be used; the message gives the expected one and the received one."""


def counted(count: int, noun: str) -> str:
    """``1 image``, ``2 images``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def printable(text: str) -> str:
    r"""`text` with an escape such as ``\x1b`` for each character that a terminal would obey, or no encoding has.

    For what strangers' files say; lines stay lines.
    """
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
