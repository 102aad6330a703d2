"""Read PyTorch weight files (`.pth`) without PyTorch and without running any code in them.

A pickle is a program: its instructions can import any function of any module and call it. The interpreter here knows only
the instructions and names that a dictionary of tensors needs. It imports nothing and calls nothing that the file names; if
the file asks for anything else, the error names it. The caller puts the file's path before the message of an InputError.
"""

import io
import mmap
import os
import pickletools
import zipfile
from typing import NamedTuple

import numpy as np

from satnp.errors import InputError
from satnp.files import MAX_NAME, check_count, zip_entries

BFLOAT16 = np.dtype([("bits", "<u2")])  # NumPy has no bfloat16, which is the upper half of a float32
STORAGES = {"Half": "<f2", "BFloat16": BFLOAT16, "Float": "<f4", "Double": "<f8", "Long": "<i8"}
DTYPES = {f"{place}.{kind}Storage": np.dtype(x) for kind, x in STORAGES.items() for place in ("torch", "torch.cuda")}
CALLS = {
    "collections.OrderedDict",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "torch.nn.parameter.Parameter",
}
LEGACY_MAGIC, LEGACY_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
LEGACY_START = b"\x8a\x0a" + LEGACY_MAGIC.to_bytes(10, "little") + b"."  # the magic number in a pickle
MAX_INSTRUCTIONS = 1_000_000  # of a pickle; those of large networks have thousands


class Global(str):
    """A name from DTYPES or CALLS; the object that it names is never imported."""


class Storage(NamedTuple):
    key: str
    dtype: np.dtype
    size: int


class Tensor(NamedTuple):
    """The elements offset + sum(index * strides) of a storage; not validated before `_check`."""

    storage: Storage
    offset: int
    shape: tuple
    strides: tuple


def read_pth(path, choose):
    """Read the state dict in a `.pth` file of either format -> {name: float32 array}

    A name of a nested dictionary has the keys of the dictionaries around it in front: state_dict.conv1.weight.
    choose(names in the file) -> {name in the file: name of the array that is returned}
    """
    with path.open("rb") as file:
        if file.read(4) == b"PK\3\4":
            with zipfile.ZipFile(file) as archive:
                return _read_zip(archive, os.fstat(file.fileno()).st_size, choose)
        return _read_legacy(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), choose)


def _read_zip(archive, size, choose):
    """The format since 2020, an uncompressed zip file: FOLDER/data.pkl is the pickle, each FOLDER/data/KEY is a storage."""
    names = zip_entries(archive, size, size)
    folders = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
    if len(folders) != 1:
        raise ValueError(f"it holds {len(folders)} entries data.pkl, not one")
    if f"{folders[0]}byteorder" in names and archive.read(f"{folders[0]}byteorder") != b"little":
        raise ValueError("its numbers are not little-endian")
    state, _ = unpickle(io.BytesIO(archive.read(f"{folders[0]}data.pkl")))
    return _arrays(state, lambda key: archive.read(f"{folders[0]}data/{key}"), choose)


def _read_legacy(blob, choose):
    """The format before 2020: pickles of a magic number, a version, the writer's system, the state dict and the storage
    keys; then, in the order of the keys, each storage: 8 bytes with the number of elements, then the elements."""
    if unpickle(blob)[0] != LEGACY_MAGIC or unpickle(blob)[0] != LEGACY_PROTOCOL:
        raise ValueError("it starts with neither a zip entry nor PyTorch's magic number")
    if unpickle(blob)[0]["little_endian"] is not True:
        raise ValueError("its numbers are not little-endian")
    state, storages = unpickle(blob)
    records = {}
    for key in unpickle(blob)[0]:
        size = int.from_bytes(blob.read(8), "little")
        if type(key) is not str or key not in storages:
            raise ValueError(f"none of its tensors is in storage {len(records)}")
        start = blob.tell()
        end = start + size * storages[key].dtype.itemsize
        if end > len(blob):
            raise ValueError(f"storage {len(records)} needs {end - start} bytes, but {len(blob) - start} are left")
        records[key] = memoryview(blob)[start:end]
        blob.seek(end)
    return _arrays(state, records.__getitem__, choose)


def unpickle(stream):
    """Read the pickle at the position of `stream` -> (its value, the storages {key: Storage} that it names)."""
    stack, marks, memo, storages = [], [], {}, {}

    def since_mark():
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    for count, (opcode, arg, _) in enumerate(pickletools.genops(stream)):
        if count == MAX_INSTRUCTIONS:
            raise ValueError(f"its pickle has more than {MAX_INSTRUCTIONS} instructions")
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case (
                "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT"
                | "BINUNICODE" | "SHORT_BINUNICODE" | "BINSTRING" | "SHORT_BINSTRING"
            ):  # fmt: skip
                stack.append(arg)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                n = int(opcode.name[-1])
                stack[-n:] = [tuple(stack[-n:])]
            case "MARK":
                marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "APPEND":
                item = stack.pop()
                stack[-1].append(item)
            case "APPENDS":
                items = since_mark()
                stack[-1].extend(items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _put(stack[-1], [(key, value)])
            case "SETITEMS":
                items = since_mark()
                _put(stack[-1], zip(items[::2], items[1::2], strict=True))
            case "BINPUT" | "LONG_BINPUT":
                memo[arg] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[arg])
            case "GLOBAL":
                stack.append(_global(*arg.split(" ", 1)))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_global(module, name))
            case "BINPERSID":
                storage = _storage(stack.pop())
                if storages.setdefault(storage.key, storage) != storage:
                    raise ValueError(f"storage {storage.key[:80]!r} has two types or sizes")
                stack.append(storage)
            case "REDUCE":
                args, call = stack.pop(), stack.pop()
                stack.append(_build(call, args))
            case "BUILD":  # ignore the versions of a state dict's modules and the hooks of a parameter
                stack.pop()
                if type(stack[-1]) not in (dict, Tensor):
                    raise ValueError("its pickle sets the state of an object that has no state")
            case "STOP":
                return stack.pop(), storages
            case _:
                raise _refusal(f"the pickle instruction {opcode.name}" + (f" {str(arg)[:40]!r}" if arg is not None else ""))


def _refusal(what):
    return InputError(
        f"asks for {what}, which was not run: only tensors of float16 to float64, bfloat16 or int64 are read; "
        "save only the model's state_dict()"
    )


def _global(module, name):
    if type(module) is not str or type(name) is not str:
        raise ValueError("its pickle names a function with a value that is not text")
    whole = f"{module}.{name}"
    if whole not in DTYPES and whole not in CALLS:
        raise _refusal(repr(whole[:80]))
    return Global(whole)


def _storage(pid):
    match pid:
        case ("storage", Global() as kind, str(key), _, int(size), *view) if kind in DTYPES and view in ([], [None]):
            return Storage(key, DTYPES[kind], size)
        case (str(kind), *_):
            raise _refusal(f"an object of the kind {kind[:80]!r} from outside the pickle")
    raise ValueError("its pickle asks for an object from outside the pickle with an id that is not a storage id")


def _build(call, args):
    """Return what a call of a Global stands for: a dict, a Tensor, or the tensor of a Parameter."""
    if type(call) is Global and type(args) is tuple:
        match call:
            case "collections.OrderedDict":
                return _put({}, *args) if args else {}
            case "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2":
                return Tensor(*args[:4])
            case "torch._utils._rebuild_parameter" | "torch.nn.parameter.Parameter":
                return args[0]
    raise ValueError("its pickle calls an object that is not a function")


def _put(target, items):
    if type(target) is not dict:
        raise ValueError("its pickle sets items of an object that is not a dictionary")
    for key, value in items:
        if type(key) not in (str, int):  # hashing nested tuples can take forever
            raise ValueError("its pickle has a dictionary with keys other than strings and integers")
        target[key] = value
    return target


def _arrays(state, record, choose):
    """Read the tensors of a state dict -> {name: float32 array}. record(key): bytes of a storage; choose: as in read_pth."""
    tensors = dict(_named(state, "", set()))
    if not tensors:
        raise InputError("has no named tensors, but the state dict of a model is needed; save the model's state_dict()")
    check_count(len(tensors))
    for name, x in tensors.items():
        _check(repr(name[:80]), x)
    values, arrays = {}, {}
    for theirs, ours in choose(tensors).items():
        storage, offset, shape, strides = tensors[theirs]
        if storage.key not in values:
            blob, wanted = record(storage.key), storage.size * storage.dtype.itemsize
            if len(blob) != wanted:
                raise ValueError(f"the storage of tensor {theirs[:80]!r} has {len(blob)} bytes, not {wanted}")
            values[storage.key] = as_float32(np.frombuffer(blob, storage.dtype))
        strides = [4 * n for n in strides]
        arrays[ours] = np.ndarray(shape, np.float32, values[storage.key], 4 * offset, strides)
    return arrays


def _named(value, name, seen):
    """Yield (name, Tensor) of a dictionary and of those in it; `seen`: ids of dictionaries, which may contain each other."""
    if type(value) is Tensor:
        yield name, value
    elif type(value) is dict and id(value) not in seen:
        seen.add(id(value))
        for key, x in value.items():
            if type(key) is str:
                if len(name) + len(key) > MAX_NAME:
                    raise ValueError(f"it has a name of more than {MAX_NAME} characters")
                yield from _named(x, f"{name}.{key}" if name else key, seen)


def _check(name, tensor):
    """Raise ValueError if a tensor exceeds its storage or has an element twice, because its size would have no limit."""
    storage, offset, shape, strides = tensor
    if type(storage) is not Storage or not all(type(n) is int and n >= 0 for n in (storage.size, offset, *shape, *strides)):
        raise ValueError(f"tensor {name} has no storage, or an offset, shape or stride that is not an integer of 0 or more")
    extent = 1
    for stride, size in sorted(zip(strides, shape, strict=True)):
        if size > 1:
            if stride < extent:
                raise ValueError(f"tensor {name} overlaps itself")
            extent += stride * (size - 1)
    if offset + (extent if 0 not in shape else 0) > storage.size:
        raise ValueError(f"tensor {name} does not fit its storage of {storage.size} elements")


def as_float32(x):
    """Convert real numbers of any dtype, including BFLOAT16, to float32; those that are too large become infinite."""
    if x.dtype == BFLOAT16:
        x = (x["bits"].astype("<u4") << 16).view("<f4")
    if x.dtype.kind not in "fiub":
        raise ValueError(f"it has an array of type {x.dtype}, not of numbers")
    with np.errstate(over="ignore"):
        return np.asarray(x, np.float32)
