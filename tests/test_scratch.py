"""Nothing is left in the temporary folder, however a process ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from segformer_tf import scratch

# A process of the command that leaves what TensorFlow and TFDS leave, and then ends by `end`.
LEAVES = """
import os, signal, sys, tempfile, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background process ignores it
from segformer_tf import cli
from segformer_tf.errors import InputError
from segformer_tf.scratch import begin_scratch

def main():
    begin_scratch()
    tempfile.mkdtemp("tfds")
    tempfile.NamedTemporaryFile(prefix="__autograph_generated_file", delete=False).close()
    os.system(f'"{sys.executable}" -c "import tempfile; tempfile.mkdtemp()"')
    print("ready", flush=True)
    {end}

cli.main = main
cli.script()
"""


def leave(end: str, root: Path) -> subprocess.Popen:
    code = LEAVES.replace("{end}", end)
    return subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(root)}, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("end", "code"), [("pass", 0), ("sys.exit(1)", 1), ("raise RuntimeError", 1), ("raise KeyboardInterrupt", None)]
)
def test_nothing_is_left(end: str, code: int | None, tmp_path: Path) -> None:
    process = leave(end, tmp_path)
    process.communicate(timeout=60)
    assert code is None or process.returncode == code
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_where_a_scheduler_ends_it(tmp_path: Path) -> None:
    process = leave("time.sleep(60)", tmp_path)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_goes_with_the_next_one(tmp_path: Path) -> None:
    killed, alive = leave("time.sleep(60)", tmp_path), leave("time.sleep(60)", tmp_path)
    for process in (killed, alive):
        assert process.stdout is not None
        process.stdout.readline()
    mine = tmp_path / "segformer_tf-scratch-of-mine"  # a folder of somebody who likes the name
    mine.mkdir()
    assert len(list(tmp_path.iterdir())) == 3
    killed.kill()
    killed.communicate()
    leave("pass", tmp_path).communicate(timeout=60)
    left = [path for path in tmp_path.iterdir() if path != mine]
    assert len(left) == 1  # of the one that lives
    assert len(list(left[0].iterdir())) == 3
    alive.send_signal(signal.SIGINT)
    alive.communicate(timeout=60)
    assert list(tmp_path.iterdir()) == [mine]


def test_tests_have_a_folder_of_their_own(tmp_path: Path) -> None:
    assert scratch._held is not None
    assert Path(tempfile.gettempdir()) == scratch._held[0]
    assert scratch._held[0] not in tmp_path.parents


def test_a_folder_that_is_swept_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "_held", None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("atexit.register", lambda _: None)
    folders, real = [], scratch._lock

    def swept(folder: Path, *, wait: bool) -> int | None:
        folders.append(folder)
        if len(folders) == 1:
            folder.rmdir()
        return real(folder, wait=wait)

    monkeypatch.setattr(scratch, "_lock", swept)
    scratch.begin_scratch()
    assert len(folders) == 2
    assert list(tmp_path.iterdir()) == [folders[1]]
    scratch.end_scratch()
    assert list(tmp_path.iterdir()) == []
    assert tempfile.gettempdir() == str(tmp_path)
