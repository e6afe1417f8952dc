"""Uses the page in Chromium, by web/drive.mjs."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from segformer_tf.edge.serve.server import PageServer

WEB = Path(__file__).parents[2] / "web"
MODULES = WEB / "node_modules"

Step = dict[str, Any]


@contextmanager
def served(model: Path) -> Iterator[str]:
    """The address of a page for a model."""
    with PageServer(model, litert=MODULES, port=0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.url
        finally:
            server.shutdown()
            thread.join()


def node(script: str, job: Any, folder: Path) -> Any:
    """The JSON that a script of web/ prints for a job."""
    if not (MODULES / "playwright-core").is_dir():
        pytest.fail("needs web/node_modules: make test-web")
    file = folder / "job.json"
    file.write_text(json.dumps(job, default=str))
    run = subprocess.run(["node", WEB / script, file], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def drive(url: str, steps: list[Step], folder: Path, *, expected: str = "", **job: Any) -> dict[str, Any]:
    """What the page says after opening it and after each step, and every address that was asked for.

    The browser must not complain, but of what is `expected`. What LiteRT writes to the console is no complaint.
    """
    seen: dict[str, Any] = node("drive.mjs", {"url": url, "steps": steps, **job}, folder)
    problems = [text for text in seen["problems"] if not text.startswith(("INFO: ", "WARNING: "))]
    assert not [text for text in problems if not expected or expected not in text]
    assert bool(problems) == bool(expected)
    return seen
