"""The one error a user of the command sees as a single line."""

from __future__ import annotations


class InputError(ValueError):
    """What was given cannot be used; the message says what was expected and what came."""
