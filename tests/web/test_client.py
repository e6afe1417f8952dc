"""The page of examples/js, put together as docs/web.md says."""

from __future__ import annotations

import threading
from base64 import b64decode
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import copy, copytree

import numpy as np
import pytest
from PIL import Image

from segformer_tf.edge import Segmenter
from segformer_tf.image import load_image
from segformer_tf.overlay import overlay
from tests.web.drive import MODULES, drive

pytestmark = pytest.mark.web

ROOT = Path(__file__).parents[2]
FILE = "document.querySelector('canvas').toDataURL('image/png')"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_client(tiny_files: dict[str, Path], toy_folder: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    copytree(ROOT / "examples" / "js", site)
    copytree(ROOT / "segformer_tf" / "edge" / "serve" / "page", site / "page")
    (site / "node_modules").symlink_to(MODULES)
    copy(tiny_files["fp32"], site / "model.tflite")
    picture = toy_folder / "test" / "images" / "0.png"
    steps = [
        {"do": "text", "on": "p", "text": "Choose a picture."},
        {"do": "give", "on": "input", "file": picture},
        {"do": "text", "on": "p", "text": "class"},
        {"do": "evaluate", "script": f"[document.querySelector('p').textContent, {FILE}]"},
    ]
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            seen = drive(f"http://127.0.0.1:{server.server_port}/", steps, tmp_path, plain=True)
        finally:
            server.shutdown()
            thread.join()
    names, url = seen["states"][-1]["value"]
    segmenter = Segmenter(tiny_files["fp32"], runtime="litert")
    mask = segmenter(picture).mask
    assert set(names.split(", ")) == {segmenter.labels.names[i] for i in np.unique(mask)}
    (tmp_path / "drawn").write_bytes(b64decode(url.split(",")[1]))
    drawn = np.asarray(Image.open(tmp_path / "drawn").convert("RGB")).astype(int)
    expected = overlay(load_image(picture), mask, segmenter.labels, alpha=0.5)
    assert (np.abs(drawn - expected).max(-1) <= 1).mean() >= 0.999


def test_client_is_short() -> None:
    lines = (ROOT / "examples" / "js" / "client.js").read_text("utf-8").splitlines()
    assert len([line for line in lines if line.strip() and not line.startswith("//")]) <= 20
