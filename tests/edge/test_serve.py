"""`segformer serve`: what its server gives, and to whom."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from segformer_tf.cli import main
from segformer_tf.edge.serve.litert_js import litert_files
from segformer_tf.edge.serve.server import PageServer
from segformer_tf.errors import InputError

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models" / "camvid_b0_int8.tflite"
Ask = Callable[..., http.client.HTTPResponse]


@pytest.fixture
def litert(tmp_path: Path) -> Path:
    """A node_modules with files in LiteRT.js's places."""
    folder = tmp_path / "node_modules"
    core = folder / "@litertjs" / "core"
    for file in ("core/dist/index.js", "wasm-utils/dist/index.js"):
        (folder / "@litertjs" / file).parent.mkdir(parents=True)
        (folder / "@litertjs" / file).write_text('import { createWasmLib } from "@litertjs/wasm-utils";')
    (core / "wasm").mkdir()
    for form in ("", "_compat", "_threaded"):
        for suffix in ("js", "wasm"):
            (core / "wasm" / f"litert_wasm{form}_internal.{suffix}").write_text(form)
    return folder


@pytest.fixture
def ask(litert: Path) -> Iterator[Ask]:
    """Asks a running server for a path, sent as it is."""
    with PageServer(MODEL, litert=litert, port=0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        connections = []

        def ask(path: str, method: str = "GET", host: str = "") -> http.client.HTTPResponse:
            connections.append(http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10))
            connections[-1].putrequest(method, path, skip_host=True)
            connections[-1].putheader("Host", host or f"127.0.0.1:{server.server_port}")
            connections[-1].endheaders()
            return connections[-1].getresponse()

        yield ask
        for connection in connections:
            connection.close()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/index.html?x=1", "text/html; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/worker.js", "text/javascript; charset=utf-8"),
        ("/served.json", "application/json"),
        ("/served.tflite", "application/octet-stream"),
        ("/litert/core/wasm/litert_wasm_threaded_internal.wasm", "application/wasm"),
    ],
)
def test_the_page_is_isolated_and_reaches_nothing_else(ask: Ask, path: str, kind: str) -> None:
    answer = ask(path)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == kind
    assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    policy = dict(rule.strip().split(" ", 1) for rule in answer.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == policy["worker-src"] == "'self'"
    assert int(answer.headers["Content-Length"]) == len(answer.read())


def test_model_and_scripts_are_given(ask: Ask) -> None:
    assert json.loads(ask("/served.json").read()) == {"name": MODEL.name}
    assert ask("/served.tflite").read() == MODEL.read_bytes()
    assert (
        ask("/litert/core/dist/index.js").read() == b'import { createWasmLib } from "../../wasm-utils/dist/index.js";'
    )
    page = ROOT / "segformer_tf" / "edge" / "serve" / "page"
    files = [file for file in page.iterdir() if file.name != "package.json"]  # that is for Node
    assert len(files) > 10
    for file in files:
        assert ask(f"/{file.name}").read() == file.read_bytes()


@pytest.mark.parametrize(
    "path",
    [
        "/../server.py",
        "/..%2fserver.py",
        "/%2e%2e/server.py",
        "//etc/passwd",
        "/page/index.html",
        "/litert/core/wasm/../../../secret",
        "/litert/core/package.json",
        f"/{MODEL}",
        "/%00",
        "http://127.0.0.1/secret",
        "//[",
    ],
)
def test_nothing_but_the_page_is_given(ask: Ask, litert: Path, path: str) -> None:
    (litert / "secret").write_text("secret")
    assert ask(path).status == 404


def test_other_hosts_and_methods_are_refused(ask: Ask) -> None:
    for host in ("example.org", "127.0.0.1.example.org:8000", "localhost.example.org", "[::1", "x"):
        assert ask("/", host=host).status == 403
    assert ask("/", host="localhost:9000").status == 200  # through an SSH tunnel
    head = ask("/", method="HEAD")
    assert head.status == 200
    assert head.read() == b""
    assert ask("/", method="POST").status == 501


def test_without_litert_a_line_says_how_to_get_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["serve", str(MODEL), "--litert", str(tmp_path)])
    assert stop.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "npm ci" in line
    assert "npm install @litertjs/core@2.5.3" in line
    assert str(tmp_path) in line


def test_parts_that_are_missing_are_named(litert: Path) -> None:
    for file in litert_files(litert).values():
        hidden = file.rename(file.with_suffix(".hidden"))
        with pytest.raises(InputError, match=f"{file.name}: not there"):
            litert_files(litert)
        hidden.rename(file)
    (litert / "@litertjs" / "core" / "dist" / "index.js").write_text("export {};")
    with pytest.raises(InputError, match="another version"):
        PageServer(MODEL, litert=litert, port=0)


def test_what_cannot_be_served_is_one_line(
    litert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.tflite").write_text("I am no model.")
    with PageServer(MODEL, litert=litert, port=0) as server:
        taken = str(server.server_port)
        for arguments, sentence in (
            ([MODEL, "--port", taken], "--port 0 takes a free one"),
            ([MODEL, "--port", "65536"], "--port 0 takes a free one"),
            ([tmp_path / "text.tflite"], "not a TFLite file"),
            ([tmp_path / "none.tflite"], "no such model file"),
        ):
            with pytest.raises(SystemExit):
                main(["serve", *map(str, arguments), "--litert", str(litert)])
            (line,) = capsys.readouterr().err.splitlines()
            assert sentence in line


def test_a_model_that_was_removed_since_is_missed(litert: Path, tmp_path: Path) -> None:
    model = Path(shutil.copy(MODEL, tmp_path / "model.tflite"))
    with PageServer(model, litert=litert, port=0) as server:
        model.unlink()
        with pytest.raises(OSError, match="No such file"):
            server.answer("served.tflite")


def test_ctrl_c_ends_it(litert: Path) -> None:
    """Without TensorFlow, Keras and torch, and without a traceback."""
    blocked = "import sys; sys.modules.update(dict.fromkeys(('tensorflow', 'keras', 'torch')))"
    blocked += "; import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # off in the background
    run = f"{blocked}; from segformer_tf.cli import script; script()"
    command = [sys.executable, "-c", run, "serve", MODEL, "--litert", litert, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        try:
            output, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    assert "camvid_b0_int8.tflite on http://127.0.0.1:" in line
    assert (process.returncode, output, errors) == (0, "ended\n", "")
