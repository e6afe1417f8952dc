"""`segformer info`: what it says, whole in 80 columns."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from convert.describe import tflite_file
from convert.describe.keras_model import layer_table
from convert.describe.tflite_file import Opened, describe_tflite
from segformer_tf.config import variant_config
from segformer_tf.errors import InputError
from tests.helpers import refused

MODEL = Path(__file__).parents[3] / "models" / "camvid_b0_int8.tflite"


def lines_of(*parts: RenderableType) -> list[str]:
    """Printed in 80 columns."""
    out = StringIO()
    Console(file=out, width=80).print(*parts)
    assert "…" not in out.getvalue()
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    return [" ".join(line.split()) for line in lines]


def test_layers_of_a_network() -> None:
    lines = lines_of(layer_table(variant_config("b0", num_classes=150), (512, 512)))
    for line in (
        "stage1/2 x attn 128x128x32 139,840 0.639 0.537 0.639",
        "stage1/norm 128x128x32 64",
        "stage1 164,096 1.022 0.537 1.022",
        "decoder/linear_fuse 128x128x256 262,656 4.295",  # nothing where it comes before the resize
        "together 3,752,694 4.093 1.040 8.388",
    ):
        assert line in lines
    lines_of(layer_table(variant_config("b5", num_classes=150), (2048, 1024)))


def test_a_file_and_its_operations() -> None:
    facts, tables = describe_tflite(MODEL)
    assert (facts["recipe"], facts["size"], facts["class map"]) == ("int8", "3.95 MB", "none in the graph")
    assert facts["input"] == "uint8 [1, 576, 768, 3]"
    assert facts["verified"].startswith("litert 2.3.0, tflite-runtime 2.14.0")
    lines = lines_of(*tables)
    for line in ("CONV_2D 65 4,116.7", "BATCH_MATMUL 16 2,962.1", "GELU 8", "together 430 7,202.2"):
        assert line in lines
    own = {line.split()[0]: line for line in lines if line.startswith(("litert", "tflite-runtime"))}
    if "litert" in own:
        assert own["litert"].split()[2:4] == ["1", "none"]
    if "tflite-runtime" in own:
        assert "48 CONV_2D" in own["tflite-runtime"]


def test_runtimes_that_refuse_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.tflite"
    path.write_bytes(MODEL.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"x.tflite: .*cut off"):  # before a runtime sees it
        describe_tflite(path)
    known = tflite_file.open_elsewhere(MODEL, tflite_file.installed_runtimes()[0])

    def one_of_two(path: Path, runtime: str) -> Opened:
        if runtime == "tflite-runtime":
            raise InputError(f"{path}: tflite-runtime 2.14.0 refuses it (no such operation)")
        return known

    monkeypatch.setattr(tflite_file, "runtime_version", lambda name: {"litert": "0.0.1"}.get(name, "2.14.0"))
    monkeypatch.setattr(tflite_file, "open_elsewhere", one_of_two)
    monkeypatch.setattr(tflite_file, "installed_runtimes", lambda: ["tflite-runtime"])
    with pytest.raises(InputError, match=r"int8.tflite: tflite-runtime 2.14.0 refuses it"):
        describe_tflite(MODEL)
    monkeypatch.setattr(tflite_file, "installed_runtimes", lambda: ["tflite-runtime", "litert"])
    lines = lines_of(*describe_tflite(MODEL)[1])
    row = next(line for line in lines if line.startswith("tflite-runtime"))
    assert row.startswith("tflite-runtime 2.14.0 refuses it")
    assert next(line for line in lines if line.startswith("litert")).endswith(" no")  # verified on another version


def test_a_class_map_is_found() -> None:
    image, logits = ("float32", [1, 64, 96, 3], "image"), ("float32", [1, 16, 24, 6], "logits")
    for dtype in ("int32", "uint8"):
        opened = Opened([image], [(dtype, [1, 64, 96], "mask"), logits], None)
        assert tflite_file._class_map(opened) == f"{dtype} [1, 64, 96], output 'mask'"
    assert tflite_file._class_map(Opened([image], [("int8", [1, 16, 24, 6], "logits")], None)) == "none in the graph"


def test_size_is_for_keras_models(capsys: pytest.CaptureFixture) -> None:
    assert "--size is for Keras models" in refused(capsys, "info", MODEL, "--size", "64", "64")
