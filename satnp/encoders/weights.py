"""The weights of an encoder: random, or read from public files without the framework that wrote them."""

import json
import mmap
from math import prod
from pathlib import Path

import numpy as np

from satnp.arrays.parameters import Parameters
from satnp.encoders.pth import BFLOAT16, as_float32, read_pth
from satnp.errors import InputError
from satnp.files import BROKEN, read_npz, there

_DTYPES = {"F16": np.float16, "BF16": BFLOAT16, "F32": np.float32, "F64": np.float64, "I64": np.int64}


def he_normal(shapes, rng):
    """Draw Parameters on the host for {name: shape}: W (K, K, C, F) or (C, F) from N(0, 2 / fan-in), b 0.

    Source: He et al. 2015.
    """
    params = Parameters(shapes)
    for _, x in params.items():
        if x.ndim > 1:
            x[...] = rng.standard_normal(x.shape) * np.sqrt(2 / np.prod(x.shape[:-1]))
    return params


def layers_between(layers, start, stop):
    """The names in `layers` from `start` up to, but not including, `stop`; `stop` None: to the last."""
    return layers[layers.index(start) : None if stop is None else layers.index(stop)]


def read_weights(path, names=None):
    """Read a weights file -> {name: float32 array}, with the names and layouts of the file (PyTorch: F, C, K, K).

    names: read only these arrays.
    """
    path = Path(path)
    if not there(path):
        raise InputError(f"there is no weights file {path}; give a .pth, .safetensors or .npz file")
    readers = {".pth": read_pth, ".safetensors": _read_safetensors, ".npz": read_npz}
    if path.suffix not in readers:
        raise InputError(f"{path} ends in {path.suffix!r}; give a .pth, .safetensors or .npz file")
    try:
        return {name: as_float32(x) for name, x in readers[path.suffix](path, names).items()}
    except InputError as refusal:
        raise InputError(f"{path} {refusal}") from None
    except BROKEN as error:
        raise InputError(f"{path} is not a complete {path.suffix} file ({error}); download it again") from None


def _read_safetensors(path, names):
    """The format: 8 bytes with the length of the header, the header in JSON, then the tensors one after another."""
    with path.open("rb") as file:
        blob = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    start = 8 + int.from_bytes(blob[:8], "little")
    tensors = {}
    for name, entry in json.loads(blob[8:start]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        dtype, shape = _DTYPES[entry["dtype"]], tuple(entry["shape"])
        if not 0 <= begin <= end <= len(blob) - start or end - begin != prod(shape) * np.dtype(dtype).itemsize:
            raise ValueError(f"tensor {name} does not fit its data_offsets")
        if names is None or name in names:
            tensors[name] = np.frombuffer(blob, dtype, prod(shape), start + begin).reshape(shape)
    return tensors


def load_convolutions(path, names, shapes):
    """Load Parameters {our name: W (K, K, C, F) or b (F,)} from a weights file; the error lists all mismatches.

    names {our name: tensor name}, shapes {our name: shape of W or b}.
    """
    tensors, arrays, faults = read_weights(path, names.values()), {}, []
    for ours, theirs in names.items():
        wanted = shapes[ours]
        if theirs not in tensors:
            faults.append(f"{theirs} is missing")
            continue
        x = tensors[theirs]
        x = x.transpose(2, 3, 1, 0) if x.ndim == 4 else x
        if x.shape != wanted:
            faults.append(f"{theirs} has shape {tensors[theirs].shape} ({x.shape} in satnp's layout), not {wanted}")
        if not np.isfinite(x).all():
            faults.append(f"{theirs} has values that are not finite")
        arrays[ours] = x
    if faults:
        raise InputError(f"{path} does not have the weights of this encoder: {'; '.join(faults)}; give a file that has them")
    return Parameters.of(arrays)
