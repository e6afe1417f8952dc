"""What the command prints through rich: names of classes and files as they are, never read as markup."""

from __future__ import annotations

from rich.console import Console


def plain_console(*, stderr: bool = False) -> Console:
    """A console for which ``[red]``, ``[/x]`` and ``:bug:`` are text, in tables and their titles too.

    Styles come as a `rich.text.Text`. What `track` and `status` are told is markup on any console: they get our words
    alone.
    """
    return Console(stderr=stderr, markup=False, emoji=False)
