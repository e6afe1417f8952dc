"""Fills the manual with what the code says: options of the verbs, import rules, the first line of each file."""

import ast
from configparser import ConfigParser
from pathlib import Path
from typing import Any

from segformer_tf.cli import VERBS, find_verb, make_app

ROOT = Path(__file__).parents[1]
PACKAGES = ("segformer_tf", "training", "convert")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replaces `<!-- commands -->` and its like; called by MkDocs for each page."""
    for content in (commands, arrows, tree):
        marker = f"<!-- {content.__name__} -->"
        if marker in markdown:
            markdown = markdown.replace(marker, content())
    return markdown


def commands() -> str:
    """What `segformer VERB --help` says, for every verb."""
    pages = []
    for verb in VERBS:
        app = make_app(verb)
        command = find_verb(app, verb)
        command.default_parameter = app.default_parameter  # not inherited where a verb is rendered by itself
        pages.append(command.generate_docs(heading_level=2, usage_name=f"segformer {verb}"))
    return "\n\n".join(pages)


def arrows() -> str:
    """The layers that import-linter holds, from setup.cfg."""
    rules = ConfigParser(interpolation=None)
    rules.read(ROOT / "setup.cfg", "utf-8")
    blocks = []
    for section in rules.sections():
        rule = rules[section]
        if section.startswith("importlinter:contract:") and rule["type"] == "layers":
            blocks.append(f"**{rule['name']}**\n\n```\n{rule['layers'].strip()}\n```")
    return "\n\n".join(blocks)


def tree() -> str:
    """Every module with the first line of its docstring, one table per folder."""
    folders: dict[Path, list[Path]] = {}
    for path in sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        folders.setdefault(path.parent, []).append(path)
    lines = []
    for folder, paths in folders.items():
        lines += [f"### {folder.relative_to(ROOT).as_posix()}/", ""]
        if (init := folder / "__init__.py") in paths:
            lines += [_docstring(init), ""]
        lines += ["| file | |", "|---|---|"]
        lines += [f"| `{path.name}` | {_docstring(path)} |" for path in paths if path.name != "__init__.py"]
        lines.append("")
    return "\n".join(lines)


def _docstring(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return text.split("\n\n")[0].replace("\n", " ").replace("``", "`").replace("|", "\\|")
