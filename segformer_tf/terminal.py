"""The command's output through rich: names of classes and files are printed literally, never read as markup."""

from __future__ import annotations

import os

from rich.console import Console


def plain_console(*, stderr: bool = False) -> Console:
    """A console that prints ``[red]``, ``[/x]`` and ``:bug:`` literally, also in tables and their titles.

    Give styles as a `rich.text.Text`. Texts of `track` and `status` are read as markup on any console: give them none
    of a user's. In a pipe or file, tables are as wide as they need.
    """
    console = Console(stderr=stderr, markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 1000
    return console
