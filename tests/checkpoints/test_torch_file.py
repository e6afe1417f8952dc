"""Files of torch.save: what torch reads is read, and nothing that they name is run."""

from __future__ import annotations

import argparse
import copyreg
import importlib
import os
import pickle
import sys
import tracemalloc
import types
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from segformer_tf.checkpoints.importer import read_checkpoint
from segformer_tf.checkpoints.state_dict import StateDict, read_state_dict
from segformer_tf.errors import InputError
from tests.checkpoints.test_import import GOLDEN
from tests.helpers import refused

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


def saved(content: object, path: Path, *, zipped: bool = True) -> StateDict:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return read_state_dict(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_every_kind_of_tensor_is_what_torch_reads(zipped: bool, tmp_path: Path) -> None:
    base = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)
    tensors = {
        "turned": base.permute(2, 0, 1),
        "part": base[1:, ::2, 1:4],
        "shared": base[2],
        "parameter": torch.nn.Parameter(torch.randn(2, 3)),
        "marked": torch.nn.Parameter(torch.randn(2)),
        "scalar": torch.tensor(7),
        "none": torch.zeros(0, 3),
        "truth": torch.tensor([True, False]),
        **{str(kind): torch.arange(-3, 4).to(kind) for kind in (torch.float64, torch.float16, torch.bfloat16)},
        **{
            str(kind): torch.arange(4).to(kind)
            for kind in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
        },
    }
    tensors["marked"].note = "an attribute"
    found = saved(tensors, tmp_path / "x.pth", zipped=zipped)
    assert found.notes == ()
    assert found.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found.tensors[name], tensor.detach().float().numpy(), err_msg=name)
        assert found.tensors[name].dtype == np.float32


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrapper", [("state_dict",), ("model",), ("ema", "module"), ()])
def test_wrappers_of_training_scripts(wrapper: tuple[str, ...], zipped: bool, tmp_path: Path) -> None:
    tensors = load_file(GOLDEN / "nvlabs.safetensors")
    held: Any = {k: torch.from_numpy(v) for k, v in tensors.items()}
    for name in reversed(wrapper):
        held = {name: held, "epoch": 3}
    found = saved(held, tmp_path / "model.pth", zipped=zipped).tensors
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor)


def test_a_whole_module_is_read_as_its_state(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.ModuleDict({"bn": torch.nn.BatchNorm2d(4)}))
    for content in (module, {"model": module, "epoch": 1}):
        found = saved(content, tmp_path / "x.pth")
        expected = module.state_dict()
        assert found.tensors.keys() == expected.keys()
        for name, tensor in expected.items():
            np.testing.assert_array_equal(found.tensors[name], tensor.float().numpy())


def test_what_trainers_keep_beside_the_weights_is_not_read(tmp_path: Path) -> None:
    fake = types.ModuleType("mmengine_of_a_test.logging")

    class HistoryBuffer:
        def __init__(self) -> None:
            self.values, self.names = np.arange(5.0), {"mean": HistoryBuffer}

    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = fake.__name__, "HistoryBuffer"
    fake.HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
    names = ("mmengine_of_a_test", fake.__name__)
    sys.modules.update(zip(names, (types.ModuleType(names[0]), fake), strict=True))
    try:
        content = {
            "meta": {
                "cfg": argparse.Namespace(a=1),
                "path": Path("x"),
                "set": {1, 2},
                "time": defaultdict(list, a=[1]),
            },
            "message_hub": {"log": OrderedDict(loss=HistoryBuffer())},
            "state_dict": {"model.a": torch.ones(2), "criterion.weight": torch.ones(3)},
            "callbacks": {HistoryBuffer: {"best": torch.tensor(0.5)}},
        }
        torch.save(content, tmp_path / "x.ckpt")
    finally:
        for name in names:
            del sys.modules[name]
    found = read_state_dict(tmp_path / "x.ckpt")
    assert list(found.tensors) == ["model.a", "criterion.weight"]
    (note,) = found.notes
    assert "its objects of argparse, mmengine_of_a_test, pathlib are not" in note
    assert names[0] not in sys.modules


class Call:
    """Pickled as a call of `function`, which may be another `Call`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.parts = function, arguments

    def __call__(self) -> None:
        """For `pickle`, which asks only whether it can be called."""

    def __reduce__(self) -> tuple:
        return self.parts


def hostile(command: str) -> dict[str, Call]:
    touch = f"__import__('os').system({command!r})"
    return {
        "os.system": Call(os.system, command),
        "eval": Call(eval, touch),
        "exec": Call(exec, touch),
        "getattr": Call(Call(getattr, Call(importlib.import_module, "os"), "system"), command),
        "torch.load": Call(torch.load, command),
    }


@pytest.mark.parametrize("name", list(hostile("")))
@pytest.mark.parametrize("zipped", [True, False])
def test_what_would_run_is_not_run(name: str, zipped: bool, tmp_path: Path) -> None:
    path, marker = tmp_path / "evil.pth", tmp_path / "was_run"
    content = {"x": hostile(f"touch {marker}")[name], "state_dict": {"a": torch.ones(2)}}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    found = read_state_dict(path)
    assert list(found.tensors) == ["a"]
    assert not marker.exists()
    if name not in ("torch.load",):
        torch.load(path, weights_only=False)  # it would have been
        assert marker.exists()


def archive(path: Path, data: bytes, **files: bytes) -> Path:
    """A file of torch.save with a pickle of one's own."""
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("x/data.pkl", data)
        for name, content in {"data/0": bytes(16), **files}.items():
            made.writestr(f"x/{name}", content)
    return path


REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ"
WHOLE = STORAGE + b"K\0(K\x02t(K\x01t\x89}t"  # storage, offset 0, size (2,), stride (1,), False, {}


def named(tensor: bytes) -> bytes:
    """The pickle of {"a": tensor}."""
    return b"\x80\x02}X\x01\0\0\0a" + tensor + b"s."


def test_a_pickle_by_hand_is_read(tmp_path: Path) -> None:
    """No file changes how another is read."""
    found = read_state_dict(archive(tmp_path / "x.pt", named(REBUILD + b"(" + WHOLE + b"R")))
    np.testing.assert_array_equal(found.tensors["a"], [0, 0])


ODD = {
    "no arguments": REBUILD + b")R",
    "numbers for arguments": REBUILD + b"(K\x01K\x02K\x03K\x04tR",
    "a size below nothing": REBUILD + b"(" + STORAGE + b"K\0(J\xff\xff\xff\xfft(K\x01ttR",
    "a size of text": REBUILD + b"(" + STORAGE + b"K\0(X\x01\0\0\0at(K\x01ttR",
    "an offset outside": REBUILD + b"(" + STORAGE + b"K\x63(K\x02t(K\x01ttR",
    "a stride outside": REBUILD + b"(" + STORAGE + b"K\0(K\x02t(K\x63ttR",
    "a storage of another file": REBUILD + b"(" + WHOLE.replace(b"\x01\0\0\x000", b"\x09\0\0\0../../a/b") + b"R",
    "a number for a reference": b"K\x05Q",
    "a state for a class": b"cos\nsystem\n}X\x01\0\0\0ak\x01sb".replace(b"k\x01", b"K\x01"),
    "attributes for a mapping": b"ccollections\nOrderedDict\nN}X\x06\0\0\0updateK\x01s\x86b",
    "a new function": REBUILD + b")\x81",
    "text to call": b"X\x01\0\0\0a)R",
    "a pairless mapping": b"ccollections\nOrderedDict\n(K\x05tR",
    "a name by two opcodes": b"X\x02\0\0\0osX\x06\0\0\0system\x93(X\x04\0\0\0truetR",
    "an old instance": b"(X\x04\0\0\0trueios\nsystem\n",
    "an old object": b"(cos\nsystem\nX\x04\0\0\0trueo",
    "an extension": b"\x82\x01",
    "another type's function": b"ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nN(X\x04\0\0\0truet}tR",
    "a buffer from outside": b"\x97",
    "a memory of 2^31": b"K\x01r\xff\xff\xff\x7f0",
    "an array of 2^60": b"\x96" + (1 << 60).to_bytes(8, "little"),
    "nothing at all": b"",
    "a length that lies": b"X\xff\xff\xff\x7fa",
}


@pytest.mark.parametrize("odd", list(ODD))
def test_odd_arguments_are_refused_or_inert(odd: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[object] = []
    monkeypatch.setattr(os, "system", ran.append)
    path = archive(tmp_path / "odd.pt", named(ODD[odd]))
    with pytest.raises(InputError) as error:  # and not a tensor called a
        read_state_dict(path)
    assert len(str(error.value).splitlines()) == 1
    assert "odd.pt" in str(error.value)
    assert ran == []
    test_a_pickle_by_hand_is_read(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        b"}X\x0c\0\0\0__defaults__)sb",
        b"N}X\x08\0\0\0__code__K\x01s\x86b",
        b"}X\x04\0\0\0nameX\x01\0\0\0asb",
    ],
)
def test_a_function_takes_no_state(change: bytes, tmp_path: Path) -> None:
    path = archive(tmp_path / "odd.pt", named(REBUILD + change + b"(" + WHOLE + b"R"))
    np.testing.assert_array_equal(read_state_dict(path).tensors["a"], [0, 0])
    test_a_pickle_by_hand_is_read(tmp_path)


def test_no_number_in_a_file_sets_memory_aside(tmp_path: Path) -> None:
    array = b"\x80\x05\x96" + (1 << 28).to_bytes(8, "little") + b"."
    header = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    (tmp_path / "old.pth").write_bytes(header + array)
    tracemalloc.start()
    try:
        for path in (archive(tmp_path / "x.pt", array), tmp_path / "old.pth"):
            with pytest.raises(InputError, match="not a checkpoint of tensors"):
                read_state_dict(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


def test_tensors_may_share_numbers_but_not_claim_a_network_by_them(tmp_path: Path) -> None:
    shared = torch.arange(100.0)
    assert len(saved({str(i): shared for i in range(8)}, tmp_path / "x.pth").tensors) == 8
    with pytest.raises(InputError, match="claim 900 numbers, the file holds 100"):
        saved({str(i): shared for i in range(9)}, tmp_path / "x.pth")


def test_names_in_a_file_do_not_reach_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    torch.save({"a\x1b[2J\ud800": torch.eye(3).to_sparse()}, tmp_path / "x.pth")
    line = refused(capsys, "import", tmp_path / "x.pth", "--out", tmp_path / "x.keras")
    assert r"a\x1b[2J\ud800 is no plain tensor" in line


def test_archives_that_lie_are_refused(tmp_path: Path) -> None:
    whole, path = named(REBUILD + b"(" + WHOLE + b"R"), tmp_path / "x.pt"
    with pytest.raises(InputError, match="big-endian"):
        read_state_dict(archive(path, whole, byteorder=b"big"))
    with pytest.raises(InputError, match="a program of TorchScript"):
        read_state_dict(archive(path, whole, **{"constants.pkl": b""}))
    with pytest.raises(InputError, match=r"a claims \(2,\), more than the file holds"):
        read_state_dict(archive(path, whole, **{"data/0": b"\0\0\0\0"}))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("x/data.pkl", whole)
        bomb.writestr("x/data/0", bytes(1 << 20))
    with pytest.raises(InputError, match="compressed"):
        read_state_dict(path)
    with zipfile.ZipFile(path, "w") as two:
        two.writestr("x/data.pkl", whole)
        two.writestr("y/data.pkl", whole)
    with pytest.raises(InputError, match="not a checkpoint of tensors"):
        read_state_dict(path)


def test_tensors_that_lie_are_refused(tmp_path: Path) -> None:
    endless: dict = {}
    endless["model"] = endless
    cases = {
        "no plain tensor": {"a": torch.eye(3).to_sparse()},
        "real numbers": {"a": torch.zeros(3, dtype=torch.complex64)},
        "real numbers \\(torch._rebuild_tensor_v2": {"a": torch._neg_view(torch.ones(2))},
        "more than the file holds": {"a": torch.zeros(1, dtype=torch.half).expand(10**13)},
        "holds no state dict": endless,
        "is no name of a tensor": {3: torch.zeros(1)},
    }
    for zipped in (True, False):
        for reason, held in cases.items():
            with pytest.raises(InputError, match=reason):
                saved(held, tmp_path / "lie.pth", zipped=zipped)


@pytest.mark.parametrize("zipped", [True, False])
def test_damage_is_one_line(zipped: bool, tmp_path: Path) -> None:
    torch.save({"a": torch.arange(4000.0)}, tmp_path / "whole.pth", _use_new_zipfile_serialization=zipped)
    whole = (tmp_path / "whole.pth").read_bytes()
    edits: list[Callable[[bytes], bytes]] = [
        lambda b: b[: len(b) // 2],
        lambda b: b[:20],
        lambda b: b[:9000] + b"\xff" * 40 + b[9040:],
        lambda b: b[::-1],
    ]
    for i, edit in enumerate(edits):
        path = tmp_path / f"{i}.pth"
        path.write_bytes(edit(whole))
        try:
            found = read_state_dict(path).tensors["a"]
        except InputError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017
        else:  # old files have no sum of their numbers
            assert not zipped
            assert found.shape == (4000,)


def test_the_network_is_read_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = load_file(GOLDEN / "nvlabs.safetensors")
    torch.save({k: torch.from_numpy(v) for k, v in tensors.items()}, tmp_path / "x.pth")
    monkeypatch.setitem(sys.modules, "torch", None)
    checkpoint, same = read_checkpoint(tmp_path / "x.pth"), read_checkpoint(GOLDEN / "nvlabs.safetensors")
    assert checkpoint.config == same.config
    for name, tensor in same.weights.items():
        np.testing.assert_array_equal(checkpoint.weights[name], tensor)


def test_extensions_of_the_process_are_not_used(tmp_path: Path) -> None:
    module = os.system.__module__
    copyreg.add_extension(module, "system", 77)
    try:
        data = pickle.dumps({"state_dict": {}, "x": os.system}, 2)
        assert b"\x82" in data
        with pytest.raises(InputError):
            read_state_dict(archive(tmp_path / "x.pt", data))
    finally:
        copyreg.remove_extension(module, "system", 77)
