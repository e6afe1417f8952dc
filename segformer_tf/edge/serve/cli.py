"""The verb `serve`, without TensorFlow."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from segformer_tf.edge.metadata import read_model_info
from segformer_tf.edge.serve.litert_js import usual_folder
from segformer_tf.edge.serve.server import PageServer
from segformer_tf.errors import printable


def serve(
    model: Path,
    *,
    port: int = 8000,
    litert: Path | None = None,
    open_page: Annotated[bool, Parameter(name="--open")] = False,
) -> None:
    """Serve a page that runs a TFLite file in the browser; needs no TensorFlow.

    Drop a picture on the page, paste one or point a camera: it is segmented by LiteRT.js in the browser, on WASM or
    WebGPU, and does not leave it. Only this machine can open the page. Ctrl-C ends it.

    LiteRT.js comes from npm (Node 20 or newer), once, in a clone of the repository:

        cd web && npm ci

    For instance:

        segformer serve model.tflite

        segformer serve model.tflite --port 0 --open

    Parameters
    ----------
    model
        A .tflite that `segformer export` wrote.
    port
        To listen on; 0 takes a free one.
    litert
        A node_modules folder with @litertjs/core. Default: web/node_modules of a clone, or node_modules here.
    open_page
        Open the page in the browser.
    """
    read_model_info(model)
    with PageServer(model, litert=litert or usual_folder(), port=port) as server:
        try:
            print(f"{printable(model.name)} on {server.url} (Ctrl-C ends it)", flush=True)
            if open_page:
                webbrowser.open(server.url)
            server.serve_forever()
        except KeyboardInterrupt:
            print("ended")
