"""The table of `make test-arm`, written and printed at the end."""

from __future__ import annotations

from importlib.metadata import distributions

import pytest

from tests.arm.boards import FOLDER, REPOSITORY, SITE
from tests.arm.table import Row, markdown, write_csv

ROWS = pytest.StashKey[list[Row]]()
OUT = REPOSITORY / "runs" / "arm.csv"


@pytest.fixture(scope="session")
def arm_table(pytestconfig: pytest.Config) -> list[Row]:
    if not FOLDER.is_dir():
        pytest.fail(f"needs the emulated boards of {FOLDER}: make test-arm")
    return pytestconfig.stash.setdefault(ROWS, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if rows := config.stash.get(ROWS, []):
        write_csv(rows, OUT)
        runtimes = ("ai-edge-litert", "tflite-runtime")
        found = {found.name: found.version for found in distributions(path=[str(SITE)])}
        terminalreporter.write_line("\n" + markdown(rows))
        terminalreporter.write_line(
            "Largest relative error of the logits to Keras' (to the same file's on x86). Emulated aarch64, "
            + ", ".join(f"{name} {found[name]}" for name in runtimes)
            + f"; every row: {OUT.relative_to(REPOSITORY)}"
        )
