"""The commands, options and files that the README and the manual name exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from convert.quantize.recipes import markdown_table
from segformer_tf.cli import VERBS, find_verb, make_app, verb_of
from training.config import RunConfig
from training.protocols import EvalProtocol

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "models/README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
WITH_COMMANDS = [
    document
    for document in DOCUMENTS
    if Path(document).name not in ("commands.md", "api.md", "architecture.md", "development.md", "languages.md")
]
FOREIGN_OPTIONS = {
    "--ntasks-per-node",
    "--gpus-per-node",
    "--nodes",
    "--rounds",
    "--seeds",
    "--long-steps",
    "--ours",
    "--recipes",
    "--runtimes",
    "--board",
    "--help",
    "--build",
    "--bind",
    "--accelerator",
    "--no-deps",
    "--only",
    "--page",
    "--no-race",
    "--rows",
    "--test",
}


def commands(text: str) -> list[str]:
    blocks = text.replace("\\\n", " ").split("```sh\n")[1:]
    lines = [line.strip() for block in blocks for line in block.split("```")[0].splitlines()]
    return ["segformer " + line.split("segformer ", 1)[1] for line in lines if re.match(r"(srun .*)?segformer ", line)]


def unknown_options(text: str) -> set[str]:
    """Options, anywhere in the text, that no verb has."""
    known = {
        name
        for verb in VERBS
        for argument in find_verb(make_app(verb), verb).assemble_argument_collection()
        for name in argument.names
    }
    return set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text)) - known - FOREIGN_OPTIONS


def missing_files(text: str) -> list[str]:
    """Python files, named by their path from the root, that do not exist."""
    paths = re.findall(r"\b(?:segformer_tf|training|convert|benchmarks|examples|tests|docs)/[\w/]+\.py", text)
    return [path for path in paths if not (ROOT / path).exists()]


@pytest.mark.parametrize("document", WITH_COMMANDS)
def test_every_printed_command_is_understood(document: str) -> None:
    printed = commands((ROOT / document).read_text("utf-8"))
    assert printed
    for line in printed:
        arguments = shlex.split(line, comments=True)[1:]
        _, bound, _ = make_app(verb_of(arguments)).parse_args(arguments, exit_on_error=False, print_error=False)
        if config := next((value for value in bound.arguments.values() if isinstance(value, RunConfig)), None):
            config.check()
        if protocol := next((value for value in bound.arguments.values() if isinstance(value, EvalProtocol)), None):
            protocol.check()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_option_file_and_link_exists(document: str) -> None:
    text = (ROOT / document).read_text("utf-8")
    assert not unknown_options(text)
    assert not missing_files(text)
    links = re.findall(r"\]\(([^)#:]+)[)#]", text)
    assert not [link for link in links if not (ROOT / document).parent.joinpath(link).exists()]


def test_what_is_wrong_is_seen() -> None:
    with pytest.raises(Exception, match="no-such"):
        make_app("train").parse_args(["train", "--no-such", "1"], exit_on_error=False, print_error=False)
    assert unknown_options("`--no-such 1` and --crop") == {"--no-such"}
    assert missing_files("`training/train.py` `training/no_such.py`") == ["training/no_such.py"]
    assert commands("```sh\nsegformer train --data d \\\n  --steps 1\n```") == ["segformer train --data d    --steps 1"]


@pytest.mark.parametrize(("verb", "most"), [("train", 20), ("export", 18)])
def test_a_walk_is_short_and_names_each_file_once(verb: str, most: int) -> None:
    text = (ROOT / "docs/architecture.md").read_text("utf-8").split(f"### segformer {verb}\n")[1].split("\n#")[0]
    files = re.findall(r"^\d+\. `(\S+\.py)`", text, re.MULTILINE)
    assert len(files) == len(set(files))
    assert 10 < len(files) <= most


def test_the_manual_has_the_table_of_recipes() -> None:
    assert markdown_table().strip() in (ROOT / "docs/export.md").read_text("utf-8")


@pytest.mark.usefixtures("quick")
def test_the_python_of_the_readme_runs(
    tiny_files: dict, trained: Path, toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    smaller = {
        '"b0"': '"tiny"',
        "model.tflite": str(tiny_files["fp32"]),
        "photo.jpg": str(toy_folder / "test" / "images" / "0.png"),
        '"Car"': '"Class 1"',
        "runs/mine": str(trained),
    }
    for large, small in smaller.items():
        assert large in block
        block = block.replace(large, small)
    monkeypatch.chdir(tmp_path)
    names = {"images": np.zeros((1, 61, 97, 3), np.float32)}
    exec(block, names)
    assert names["logits"].shape == (1, 16, 25, 3)
    assert names["result"].mask_of("Class 1").shape == names["result"].mask.shape
    names["model"].fit(names["images"], np.zeros((1, 61, 97), np.uint8), verbose=0)
