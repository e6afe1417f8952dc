"""Manifests as YAML, and the schema that editors read, held against the reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import training.data.folder
from segformer_tf.errors import InputError
from tests.training.folders import EVERY, ROWS, write_folder
from training.data.folder.manifest import Manifest
from training.data.open import open_source

SCHEMA = json.loads((Path(training.data.folder.__file__).parent / "dataset.schema.json").read_text("utf-8"))
DATA = {"classes": ROWS, "ignore": [9, [1, 2, 3]], "license": "CC0", "name": "rows", "bits": 12, "exif": "apply"}
TEXT = """\
# yaml-language-server: $schema=dataset.schema.json
name: rows
license: CC0
classes:
  - {id: 0, name: c0, color: [0, 0, 0]}
  - {id: [1, 4], name: "no", color: [255, 0, 0]}
  - id: 2
    name: c2
    color: [[0, 255, 0], [1, 1, 1]]
ignore: [9, [1, 2, 3]]
"""


def test_yaml_says_the_same_as_json(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", [EVERY], **{k: v for k, v in DATA.items() if k != "classes"})
    expected = Manifest.read(root / "dataset.json")
    (root / "dataset.json").unlink()
    for name in ("dataset.yaml", "dataset.yml"):
        (root / name).write_text(yaml.safe_dump(DATA))
        source = open_source(str(root), "train")
        assert (source.labels, source.license, source.bits) == (expected.labels, "CC0", 12)
        assert open_source(str(root / name), "val").labels == expected.labels  # the file itself as data
        (root / name).unlink()


def test_yaml_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "dataset.yaml"
    path.write_text(TEXT, "utf-8")
    manifest = Manifest.read(path)
    assert manifest.labels.names == ("c0", "no", "c2")
    assert [manifest.class_of_value[v] for v in (1, 4, 2, 9)] == [1, 1, 2, 255]
    jsonschema.validate(yaml.safe_load(TEXT), SCHEMA)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TEXT.replace('"no"', "no"), "a class name is a text. Received: False"),
        (TEXT + "name: again\n", "key 'name' stands there twice"),
        ("classes: &all [*all]", "an alias (*name) in line 1: write the part out"),
        ("classes: [", "not YAML (line 1: "),
        ("a: b: c", "not YAML (line 1: mapping values are not allowed here)"),
        ("classes: !!python/object/apply:os.system [echo]", "not YAML (line 1: could not determine a constructor"),
        ("", "not a usable manifest"),
        ("- 1", "not a usable manifest"),
        ("? [a]\n: 1", "not a usable manifest"),
        ("[" * 3000, "not a usable manifest"),
        ("name: " + "x" * (1 << 20), "more than 1048576 bytes"),
        (TEXT.replace("CC0", "2024-01-01"), '"license" is a text. Received: datetime.date'),
    ],
)
def test_yaml_that_is_broken_or_unsafe_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "dataset.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(InputError) as refused:
        Manifest.read(path)
    assert str(path) in str(refused.value)
    assert message in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_two_manifests_and_other_files_are_refused(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", [EVERY])
    (root / "dataset.yml").write_text(TEXT)
    with pytest.raises(InputError, match=r"two manifests, dataset\.json and dataset\.yml; remove one"):
        open_source(str(root), "train")
    with pytest.raises(InputError, match=r"0\.png: a file; expected a folder, or its manifest"):
        open_source(str(root / "train" / "masks" / "0.png"), "train")
    (root / "dataset.json").write_text('{"name": "a", "name": "b"}')
    with pytest.raises(InputError, match="key 'name' stands there twice"):
        Manifest.read(root / "dataset.json")


def test_a_manifest_may_lie_elsewhere(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", [EVERY])
    (tmp_path / "mine").mkdir()
    for path in (str(root), "../data"):
        (tmp_path / "mine" / "street.json").write_text(json.dumps({"classes": ROWS, "path": path}))
        source = open_source(str(tmp_path / "mine" / "street.json"), "train")
        assert (len(source), source.name) == (1, "mine")


def variant(**changes: Any) -> dict[str, Any]:
    return {**DATA, **changes}


def row(**changes: Any) -> dict[str, Any]:
    return variant(classes=[{**ROWS[0], **changes}, *ROWS[1:]])


ACCEPTED = [
    DATA,
    {"classes": ROWS},
    variant(**{"$schema": "dataset.schema.json", "note": "by hand", "unknown": [1]}),
    variant(validation={"share": 0.1}),
    variant(validation={"share": 0.5, "seed": 7}, path="elsewhere"),
    row(id=[0, 7]),
    row(id=0.0),
    row(color=[[1, 1, 1], [2, 2, 2]]),
    row(name=5),
    variant(exif=None, bits=None, validation=None),
]
REFUSED = [
    [],
    {},
    {"classes": {}},
    variant(classes=[]),
    variant(classes=ROWS[:1]),
    variant(classes=["road", "sky"]),
    *(variant(classes=[{k: v for k, v in ROWS[0].items() if k != key}, *ROWS[1:]]) for key in ("id", "name", "color")),
    *(row(id=value) for value in (-1, 256, 0.5, "0", True, [], [300], None)),
    *(row(name=value) for value in ("", "a\nb", True, None, 1.5, ["a"])),
    *(row(color=value) for value in ([0, 0], [0, 0, 0, 0], [0, 0, 256], "#ffffff", 0, [], [[0, 0]], ["0", 0, 0])),
    *(variant(ignore=value) for value in ([300], ["255"], [[1, 2]], 255, None)),
    *(variant(bits=value) for value in (7, 17, "12", True)),
    *(variant(validation=value) for value in (0.1, {}, {"share": 0}, {"share": 1}, {"share": True}, {"seed": 1})),
    *(variant(validation={"share": 0.1, **more}) for more in ({"seed": -1}, {"seed": 0.5}, {"seeds": 1})),
    variant(exif="upright"),
    variant(name=["a"]),
    variant(license=None),
    variant(path=True),
]
# What a schema cannot say.
REFUSED_BY_THE_READER_ALONE = [
    variant(classes=[ROWS[0], {**ROWS[1], "id": 0}]),
    variant(classes=[ROWS[0], {**ROWS[1], "name": "C0"}]),
    variant(ignore=[0]),
    variant(licence="CC0"),
]


def reads(data: Any, path: Path) -> bool:
    path.write_text(json.dumps(data))
    try:
        Manifest.read(path)
    except InputError:
        return False
    return True


def fits(data: Any) -> bool:
    return jsonschema.Draft202012Validator(SCHEMA).is_valid(data)


def test_the_schema_accepts_what_the_reader_does(tmp_path: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    path = tmp_path / "dataset.json"
    assert [(each, reads(each, path), fits(each)) for each in ACCEPTED] == [(each, True, True) for each in ACCEPTED]
    assert [(each, reads(each, path), fits(each)) for each in REFUSED] == [(each, False, False) for each in REFUSED]
    assert [(reads(each, path), fits(each)) for each in REFUSED_BY_THE_READER_ALONE] == [(False, True)] * 4


def test_the_schema_names_every_key_of_the_reader() -> None:
    from training.data.folder.manifest import _CLASS_KEYS, _CUT_KEYS, _KEYS

    properties = SCHEMA["properties"]
    assert set(_KEYS) == properties.keys() - {"$schema", "note"}
    assert set(_CLASS_KEYS) == properties["classes"]["items"]["properties"].keys()
    assert set(_CUT_KEYS) == properties["validation"]["properties"].keys()
