"""The command's output through rich: names of classes and files are printed literally, never read as markup."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table


def plain_console(*, stderr: bool = False) -> Console:
    """A console that prints ``[red]``, ``[/x]`` and ``:bug:`` literally, also in tables and their titles.

    Give styles as a `rich.text.Text`. Texts of `track` and `status` are read as markup on any console: give them none
    of a user's. In a pipe or file, tables are as wide as they need.
    """
    console = Console(stderr=stderr, markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 1000
    return console


def narrow_table(words: Sequence[str], numbers: Sequence[str] = (), *, title: str = "", caption: str = "") -> Table:
    """A table for 80 columns: words fold where there is no room, numbers are not cut as long as they fit without words.

    Args:
        words, numbers: titles of its columns; those of numbers are to the right, and break at line feeds alone.
        title, caption: above and below it.
    """
    table = Table(title=title or None, caption=caption or None, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in words:
        table.add_column(name, overflow="fold", vertical="top")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table
