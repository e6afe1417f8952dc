"""Every command that README.md and RECIPES.md print is one that the command line takes."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from segformer_tf.cli import make_app
from training.config import RunConfig
from training.protocols import EvalProtocol

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "training/RECIPES.md", "models/README.md")


def commands(document: str) -> list[str]:
    text = (ROOT / document).read_text("utf-8").replace("\\\n", " ")
    blocks = text.split("```sh\n")[1:]
    lines = [line.strip() for block in blocks for line in block.split("```")[0].splitlines()]
    return ["segformer " + line.split("segformer ", 1)[1] for line in lines if "segformer " in line]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_printed_command_is_understood(document: str) -> None:
    found = commands(document)
    assert found
    for line in found:
        verb, *arguments = shlex.split(line, comments=True)[1:]
        _, bound, _ = make_app(verb).parse_args([verb, *arguments], exit_on_error=False, print_error=False)
        if config := next((value for value in bound.arguments.values() if isinstance(value, RunConfig)), None):
            config.check()
        if protocol := next((value for value in bound.arguments.values() if isinstance(value, EvalProtocol)), None):
            protocol.check()


def test_a_command_that_is_wrong_is_found() -> None:
    with pytest.raises(Exception, match="no-such"):
        make_app("train").parse_args(["train", "--no-such", "1"], exit_on_error=False, print_error=False)
