"""LiteRT.js, which runs ``.tflite`` files in browsers: where npm put it."""

from __future__ import annotations

from pathlib import Path

from segformer_tf.errors import InputError

VERSION = "2.5.3"
_CORE, _UTILS = Path("@litertjs") / "core", Path("@litertjs") / "wasm-utils"
_SCRIPT = "litert/core/dist/index.js"
_BARE, _SERVED = b'"@litertjs/wasm-utils"', b'"../../wasm-utils/dist/index.js"'
_FORMS = ("", "_compat", "_threaded")  # of the runtime; a browser loads one


def usual_folder() -> Path:
    """``web/node_modules`` of a clone, else ``node_modules`` in the working folder."""
    of_clone = Path(__file__).parents[3] / "web" / "node_modules"
    return of_clone if of_clone.is_dir() else Path("node_modules")


def litert_files(folder: Path) -> dict[str, Path]:
    """The files of LiteRT.js by their path on the page.

    Args:
        folder: a ``node_modules``.

    Raises:
        InputError: a file is missing; the message says how to get it.
    """
    files = {_SCRIPT: folder / _CORE / "dist" / "index.js"}
    files["litert/wasm-utils/dist/index.js"] = folder / _UTILS / "dist" / "index.js"
    for form in _FORMS:
        for suffix in ("js", "wasm"):
            name = f"litert_wasm{form}_internal.{suffix}"
            files[f"litert/core/wasm/{name}"] = folder / _CORE / "wasm" / name
    if missing := next((file for file in files.values() if not file.is_file()), None):
        raise InputError(
            f"{missing}: not there, so the page has no LiteRT.js; run `npm ci` in web/ of the repository, or "
            f"`npm install @litertjs/core@{VERSION}` anywhere and give --litert node_modules"
        )
    return files


def as_served(path: str, content: bytes) -> bytes:
    """A file's content as the page gets it: a name that only Node resolves becomes a path.

    Raises:
        InputError: another version of LiteRT.js, without that name.
    """
    if path != _SCRIPT:
        return content
    if content.count(_BARE) != 1:
        raise InputError(f"this LiteRT.js is of another version: npm install @litertjs/core@{VERSION}")
    return content.replace(_BARE, _SERVED)
