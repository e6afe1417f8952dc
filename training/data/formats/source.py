"""The files of an export, listed once: an annotation's image is looked up in that list, never opened by its path.

So a path that leads out of the export, or an absolute one, leads nowhere.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from filecmp import cmp
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from unicodedata import normalize
from urllib.parse import parse_qs, unquote, urlsplit

from segformer_tf.errors import InputError
from segformer_tf.files import make_folder
from segformer_tf.image import IMAGE_SUFFIXES, refuse_url
from training.data.formats.archive import unpack
from training.data.formats.fields import read_json

SPLITS = {  # what folders and files are called, by ours
    "train": "train",
    "training": "train",
    "train2017": "train",
    "train2014": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "val2017": "val",
    "val2014": "val",
    "test": "test",
    "testing": "test",
    "test2017": "test",
}
_HASH = re.compile(r"[0-9a-f]{8}-")  # Label Studio puts it before the names of uploads


class Source:
    """A folder, or one annotation file in a folder.

    Attributes:
        path: the folder or file.
        root: the folder.
        files: every file of it that is not hidden, in order; of an annotation file, that file alone.
        images: the images among them, or those in their own folder.
    """

    def __init__(self, path: Path, images: Path | None = None, *, archive: Path | None = None) -> None:
        self.path = path
        self.root = path if path.is_dir() else path.parent
        self.files = list(_walk(path)) if path.is_dir() else [path]
        self._archive = archive
        self._image_root = images or self.root
        found = self.files if path.is_dir() and images is None else list(_walk(self._image_root))
        self.images = [file for file in found if file.suffix.lower() in IMAGE_SUFFIXES]
        self._known = set(self.images)
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        self._outlines: dict[Path, tuple[str, frozenset[str]]] = {}
        for image in self.images:
            self._by_name[normalize("NFC", image.name)].append(image)

    def readable(self, text: str) -> str:
        """A message in which files of an archive have its name, not that of the folder it was unpacked to."""
        text = text.replace(str(self.root), str(self._archive)) if self._archive else text
        return text.encode("utf-8", "backslashreplace").decode()  # bytes of a name that are no letters

    def with_suffix(self, *suffixes: str) -> list[Path]:
        """Files of these suffixes, in lower case."""
        return [file for file in self.files if file.suffix.lower() in suffixes]

    def named(self, name: str) -> list[Path]:
        """Files of this name."""
        return [file for file in self.files if file.name == name]

    def json_outline(self, file: Path) -> tuple[str, frozenset[str]]:
        """What tells formats in JSON apart: "object" or "list", and the keys of that object or of the first entry.

        ("", no keys) for what is neither. A file is read once for all formats: COCO's have hundreds of megabytes.
        """
        if file not in self._outlines:
            try:
                data = read_json(file)
            except InputError:
                data = None
            kind = "object" if isinstance(data, dict) else "list" if isinstance(data, list) else ""
            first = data[0] if kind == "list" and data else data
            self._outlines[file] = kind, frozenset(first) if isinstance(first, dict) else frozenset()
        return self._outlines[file]

    def relative(self, file: Path) -> PurePosixPath:
        """Where a file lies, below the folder of the images or else below the root; letters composed.

        macOS takes letters apart in names, so that those of an image and of its mask may differ.
        """
        root = self._image_root if file in self._known else self.root
        return PurePosixPath(normalize("NFC", file.relative_to(root).as_posix()))

    def split_of(self, file: Path) -> str | None:
        """The split that one of the folders above a file names, the innermost."""
        return next(
            (SPLITS[part.lower()] for part in reversed(self.relative(file).parts[:-1]) if part.lower() in SPLITS), None
        )

    def only(self, *names: str) -> Path | None:
        """The file of one of these names that says what masks mean; raises InputError where two say something else."""
        files = [file for name in names for file in self.named(name)]
        if odd := next((file for file in files if file.name == files[0].name and not _same(file, files[0])), None):
            raise InputError(f"{odd}: says something else than {files[0]}; import the folders one by one")
        return files[0] if files else None

    def image(self, reference: str, annotation: Path, where: str, *, split: str | None = None) -> Path:
        """The image that an annotation names.

        It lies where the name says, seen from the annotation file, from a folder `images` beside it or from the root;
        or else it is the one image of that file name, or of those the one with the most folders of the name.

        Args:
            reference: a path of any system or a URL.
            annotation: the file that names it.
            where: names the annotation in errors.
            split: of the annotation, to decide among several.

        Raises:
            InputError: no such image, or several.
        """
        parts = _parts(reference)
        for folder in (annotation.parent, self._image_root, annotation.parent / "images"):
            if inside := self._by_path(parts, folder):
                return inside
        name = normalize("NFC", parts[-1]) if parts else ""
        names = (name, _HASH.sub("", name, count=1), unquote(name), _HASH.sub("", unquote(name), count=1))
        same = next((self._by_name[each] for each in names if each in self._by_name), [])
        if not same:
            raise InputError(
                f"{where}: no image {name!r} below {self._image_root}; --images says where they lie{_kinds(name)}"
            )
        if split and len(same) > 1:
            same = [path for path in same if self.split_of(path) == split] or same
        ranked = sorted(same, key=lambda path: _common_end(path.parts, parts), reverse=True)
        if len(ranked) > 1 and _common_end(ranked[0].parts, parts) == _common_end(ranked[1].parts, parts):
            raise InputError(
                f"{where}: image {reference!r} may be {ranked[0]} or {ranked[1]}; --images says in which folder to look"
            )
        return ranked[0]

    def _by_path(self, parts: tuple[str, ...], folder: Path) -> Path | None:
        """The listed image at `parts` from `folder`."""
        path = Path(os.path.normpath(folder.joinpath(*parts))) if parts else folder
        return path if path in self._known else None


@contextmanager
def open_source(path: Path, images: Path | None, beside: Path) -> Iterator[Source]:
    """The files of an export.

    Args:
        path: a folder, an annotation file or a .zip, which is unpacked for as long as the context lasts.
        images: folder of the images, where they lie elsewhere.
        beside: a .zip is unpacked beside this path.

    Raises:
        InputError: no such file or folder, or a .zip that is broken, encrypted or not to be trusted.
    """
    refuse_url(path)
    if images is not None and not images.is_dir():
        raise InputError(f"--images {images}: no such folder")
    path, images = Path(os.path.normpath(path)), images and Path(os.path.normpath(images))
    if path.is_file() and path.suffix.lower() == ".zip":
        make_folder(beside.parent)
        with TemporaryDirectory(prefix=f".{beside.name}.", dir=beside.parent) as folder:
            unpack(path, Path(folder))
            source = Source(Path(folder), images, archive=path)
            try:
                yield source
            except InputError as error:
                raise InputError(source.readable(str(error))) from None
    elif path.is_dir() or path.is_file():
        yield Source(path, images)
    else:
        raise InputError(f"{path}: no such file or folder")


def _walk(root: Path) -> Iterator[Path]:
    """Files below a folder in order, also through links to folders, each folder once; hidden ones are skipped."""
    seen: set[str] = set()
    for folder, names, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            names.clear()
            continue
        seen.add(real)
        names[:] = sorted(name for name in names if not name.startswith((".", "__MACOSX")))
        yield from (Path(folder) / name for name in sorted(files) if not name.startswith("."))


def _parts(reference: str) -> tuple[str, ...]:
    """Folders and name of a path or URL; of ``/data/local-files/?d=a/b.jpg``, which Label Studio writes, a/b.jpg."""
    if "?d=" in reference:
        reference = parse_qs(urlsplit(reference).query).get("d", [""])[0]
    elif "://" in reference:
        reference = unquote(urlsplit(reference).path)
    path = PurePosixPath(reference.replace("\\", "/").replace("\0", ""))
    return tuple(part for part in path.parts if part not in ("/", "."))


def _same(one: Path, two: Path) -> bool:
    try:
        return one == two or cmp(one, two, shallow=False)
    except OSError:
        return False  # whoever reads it says why


def _common_end(one: tuple[str, ...], two: tuple[str, ...]) -> int:
    """How many parts are the same, from the last but one backwards: the names are alike already."""
    pairs = zip(reversed(one[:-1]), reversed(two[:-1]), strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(two)) - 1)


def _kinds(name: str) -> str:
    suffix = PurePosixPath(name).suffix.lower()
    return "" if suffix in IMAGE_SUFFIXES else f" (images are {', '.join(IMAGE_SUFFIXES)})"
