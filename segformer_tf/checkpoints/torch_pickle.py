"""The pickle in a file of `torch.save`, read without torch. Nothing that it names is imported or run.

A pickle names functions to call and classes to build. Here a name stands for one of a few objects of this module: the
call that makes a tensor becomes a `TorchTensor`, and everything else an object that takes whatever is done to it and
does nothing.

Source: what `torch/_utils.py` and `torch/serialization.py` write.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import IO, Any, ClassVar

_STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "U8",
}
_REBUILDS = {"_rebuild_tensor", "_rebuild_tensor_v2"}
_WRAPPED = {"_rebuild_parameter", "_rebuild_parameter_with_state"}
# Extensions are classes that the process has registered; a bytearray is filled with zeros to the size that a file says.
_LEFT_OUT = pickle.EXT1 + pickle.EXT2 + pickle.EXT4 + pickle.BYTEARRAY8
_PLAIN = ("torch", "numpy", "collections", "builtins", "__builtin__", "_codecs", "copyreg")


class _Inert:
    """Stands for whatever a file names: it may be called, filled and given a state, and only keeps the state."""

    name = ""
    state: Any = None

    def __new__(cls, *_: Any, **__: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> Any:
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, *_: Any) -> None:
        pass

    append = extend = add = __setitem__


class _Mapping(dict[Any, Any]):
    """An OrderedDict; the attributes that a file gives it are not kept."""

    def __setstate__(self, state: Any) -> None:
        pass


class _DefaultMapping(_Mapping):
    """A defaultdict without its function."""

    def __init__(self, *_: Any) -> None:
        super().__init__()


class Storage(_Inert):
    """Numbers that several tensors may share."""

    kind: str | None  # see `numbers.decoded`; None for what is no real number
    key: str
    start: int  # of a view into a larger one, as old files have them


class TorchTensor(_Inert):
    """A tensor whose numbers are not read yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Rebuild(_Inert):
    """A function of torch that makes a tensor."""

    name: str

    def __call__(self, *args: Any) -> Any:
        if self.name in _REBUILDS and not any(args[6:]):  # such as a bit that negates
            return _tensor(*args[:4])
        if self.name in _WRAPPED and args and isinstance(args[0], _Inert):
            return args[0]
        if self.name == "_rebuild_from_type_v2" and len(args) == 4 and isinstance(args[0], _Rebuild):
            return args[0](*args[2])
        return _inert(f"torch.{self.name}")()


class TensorUnpickler(pickle._Unpickler):
    """The one in Python, for that in C sets aside as much memory as a number in the file says."""

    dispatch: ClassVar = {op: f for op, f in pickle._Unpickler.dispatch.items() if op not in _LEFT_OUT}

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="utf-8", errors="replace")
        self.unread: dict[str, None] = {}
        self.kinds: dict[str, str | None] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch._utils", "torch._tensor") and name.startswith("_rebuild"):
            rebuild = _Rebuild()
            rebuild.name = name
            return rebuild
        if (module, name) == ("collections", "OrderedDict"):
            return _Mapping
        if (module, name) == ("collections", "defaultdict"):
            return _DefaultMapping
        if (package := module.split(".")[0]) not in _PLAIN:
            self.unread[package if package.isidentifier() else "no name"] = None
        return _inert(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        if not isinstance(pid, tuple) or len(pid) < 2:
            raise pickle.UnpicklingError("an unknown reference")
        if pid[0] == "module":
            return pid[1]
        what, kind, key, _, count, *view = pid
        if what != "storage" or not isinstance(key, str) or not _is_count(count):
            raise pickle.UnpicklingError("an unknown reference")
        start = view[0][1] if view and isinstance(view[0], tuple) and len(view[0]) == 3 else 0
        if not _is_count(start):
            raise pickle.UnpicklingError("an unknown reference")
        storage = Storage()
        storage.kind = self.kinds[key] = _STORAGES.get(getattr(kind, "name", "").rpartition(".")[2])
        storage.key, storage.start = key, start
        return storage


def module_tensors(content: Any) -> Mapping[Any, Any] | None:
    """The tensors by name of a dict, or of a whole module that was saved as an object; None for anything else."""
    if isinstance(content, Mapping):
        return content
    if not _is_module(content):
        return None
    found: dict[str, Any] = {}
    waiting, seen = [("", content)], set()
    while waiting:
        prefix, module = waiting.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        for field in ("_parameters", "_buffers", "_modules"):
            for name, value in (module.state.get(field) or {}).items():
                if isinstance(value, TorchTensor):
                    found[f"{prefix}{name}"] = value
                elif _is_module(value):
                    waiting.append((f"{prefix}{name}.", value))
    return found


def is_other_tensor(value: Any) -> str | None:
    """The function of torch that would make a tensor which is not plain, such as a sparse one; else None."""
    return value.name if isinstance(value, _Inert) and value.name.startswith("torch._rebuild") else None


def _is_module(value: Any) -> bool:
    state = value.state if isinstance(value, _Inert) else None
    return isinstance(state, dict) and all(isinstance(state.get(k), dict) for k in ("_parameters", "_modules"))


def _tensor(*args: Any) -> TorchTensor:
    storage, offset, shape, stride = args
    plain = isinstance(shape, tuple) and isinstance(stride, tuple) and len(shape) == len(stride) <= 32
    if not isinstance(storage, Storage) or not plain or not all(map(_is_count, (offset, *shape, *stride))):
        raise pickle.UnpicklingError("a tensor of an unknown form")
    tensor = TorchTensor()
    tensor.storage, tensor.offset, tensor.shape, tensor.stride = storage, offset, shape, stride
    return tensor


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 48


def _inert(name: str) -> type[_Inert]:
    """A class of its own for each name of each file, so that no file changes what another is read with."""
    return type("_Inert", (_Inert,), {"name": name})
