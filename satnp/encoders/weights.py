"""The weights of an encoder: random, or read from public files without the framework that wrote them."""

import json
import mmap
import zipfile
from collections import defaultdict
from contextlib import suppress
from math import prod
from pathlib import Path

import numpy as np

from satnp.arrays.parameters import Parameters
from satnp.encoders.pth import BFLOAT16, LEGACY_START, as_float32, read_pth
from satnp.errors import InputError
from satnp.files import MAX_NAME, check_count, npz_names, read_npz, refusing, there
from satnp.terminal import few

BATCH_NORM = "weight", "bias", "running_mean", "running_var"
CHECKPOINT = "checkpoint"  # of satnp, for form_of
ENDINGS = {".pth": ".pth", ".pt": ".pth", ".bin": ".pth", ".ckpt": ".pth", ".safetensors": ".safetensors", ".npz": ".npz"}
MAX_HEADER = 10_000_000  # bytes of the header of a .safetensors file; those of large networks have a few hundred thousand
MAX_DIMENSIONS = 32  # of an array, in NumPy 1
_DTYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8", "I64": "<i8",
    "F16": "<f2", "BF16": BFLOAT16, "F32": "<f4", "F64": "<f8",
}  # fmt: skip
_DTYPES = {name: np.dtype(kind) for name, kind in _DTYPES.items()}


def he_normal(shapes, rng):
    """Draw Parameters on the host for {name: shape}: W (K, K, C, F) or (C, F) from N(0, 2 / fan-in), b 0.

    Source: He et al. 2015.
    """
    params = Parameters(shapes)
    for _, x in params.items():
        if x.ndim > 1:
            x[...] = rng.standard_normal(x.shape) * np.sqrt(2 / np.prod(x.shape[:-1]))
    return params


def check_scale(scale):
    """Raise InputError unless `scale`, the factor of the annotations, is a finite number above 0."""
    if not 0 < scale < float("inf"):
        raise InputError(f"scale is {scale}; choose a number above 0")


def layers_between(layers, start, stop):
    """The names in `layers` from `start` up to, but not including, `stop`; `stop` None: to the last."""
    return layers[layers.index(start) : None if stop is None else layers.index(stop)]


def form_of(path):
    """The form of a file by its content: ".pth", ".safetensors", ".npz" or CHECKPOINT; None if the content does not say."""
    with suppress(Exception), open(path, "rb") as file:
        head = file.read(32)
        if LEGACY_START in head:
            return ".pth"
        if head[6:9] == b"\0\0{":  # 8 bytes with the length of a header in JSON
            return ".safetensors"
        names = zipfile.ZipFile(file).namelist() if head.startswith(b"PK\3\4") else ()
        if any(name.endswith("/data.pkl") for name in names):
            return ".pth"
        if any(name == "header.npy" or name.startswith("params/") for name in names):
            return CHECKPOINT
        if any(name.endswith(".npy") for name in names):
            return ".npz"
    return None


def read_weights(path, names=None):
    """Read a weights file -> {name: float32 array}, with the names and layouts of the file (PyTorch: F, C, K, K).

    names: read only these arrays. In the file they may have a common prefix, or lack theirs (`find_names`). The content of
    the file decides how it is read; its ending (any of ENDINGS) is used only when the content is damaged.
    """
    path = Path(path)
    if not there(path):
        raise InputError(f"there is no weights file {path}; give a .pth, .safetensors or .npz file")
    form = form_of(path) or ENDINGS.get(path.suffix.lower())
    if form is None:
        raise InputError(f"{path} ends in {path.suffix!r}; give a .pth, .safetensors or .npz file")
    if form == CHECKPOINT:
        raise InputError(
            f"{path} is a checkpoint of satnp, not the weights of an encoder; give a .pth, .safetensors or .npz file of "
            "weights, or start a training from the checkpoint with --init"
        )

    def choose(there):
        check_count(len(there))
        if any(len(name) > MAX_NAME for name in there):
            raise ValueError(f"it has a name of more than {MAX_NAME} characters")
        return {name: name for name in there} if names is None else find_names(names, there)

    readers = {".pth": read_pth, ".safetensors": _read_safetensors, ".npz": _read_npz}
    try:
        with refusing(f"is not a complete {form} file", "download it again"):
            return {name: as_float32(x) for name, x in readers[form](path, choose).items()}
    except InputError as refusal:
        raise InputError(f"{path} {refusal}") from None


def find_names(names, there):
    """Find the names of a network among those of a file -> {name in the file: name}

    All of them may have one prefix of whole parts in the file, such as `module.` or the keys of the dictionaries around the
    arrays (`state_dict.`). The prefix may also stand in place of the first part, if all `names` have the same one:
    `0.weight` and `encoder.0.weight` are `features.0.weight`. The prefix with most of the names is chosen, and names
    without a prefix before all others. Raises: InputError when several prefixes have all names.
    """
    parts = [tuple(name.split(".")) for name in names]
    own = parts[0][:1] if len(parts) > 1 and all(len(x) > 1 and x[0] == parts[0][0] for x in parts) else ()
    ends = {x[len(own) :]: ".".join(x) for x in parts}
    lengths = {len(end) for end in ends}
    found = defaultdict(dict)  # {prefix: {name in the file: name}}
    for name in there:
        x = tuple(name.split("."))
        for length in lengths:
            if x[-length:] in ends:
                found[x[:-length]][name] = ends[x[-length:]]
    whole = [prefix for prefix, x in found.items() if len(x) == len(ends)]
    if own in whole:
        return found[own]
    if len(whole) > 1:
        first, second, *_ = (".".join((*prefix, "")) for prefix in whole)
        raise InputError(f"has all weights of the encoder twice, behind {first!r} and {second!r}; save only those to use")
    partial = [x for prefix, x in found.items() if prefix[len(prefix) - len(own) :] == own]
    return found[whole[0]] if whole else max(partial, key=len, default={})


def _read_npz(path, choose):
    chosen = choose(npz_names(path))
    arrays = read_npz(path, chosen)
    return {ours: arrays[theirs] for theirs, ours in chosen.items()}


def _read_safetensors(path, choose):
    """The format: 8 bytes with the length of the header, the header in JSON, then the tensors one after another.

    Raises: ValueError unless the tensors fill the rest of the file without overlaps and holes, as the format demands.
    """
    with path.open("rb") as file:
        blob = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    start = 8 + int.from_bytes(blob[:8], "little")
    if start > min(len(blob), MAX_HEADER):
        raise ValueError(f"its header has {start - 8} bytes, but the file has {len(blob)} and at most {MAX_HEADER} are read")
    header = blob[8:start]
    check_count(header.count(b'"data_offsets"'))  # before Python objects are made of it
    tensors = json.loads(header, object_pairs_hook=_once)
    if type(tensors) is not dict:
        raise ValueError("its header is not a dictionary")
    tensors = {name: _place(name, x, len(blob) - start) for name, x in tensors.items() if name != "__metadata__"}
    reached = 0
    for begin, end, name in sorted((begin, end, name) for name, (_, _, begin, end) in tensors.items()):
        if begin != reached:
            raise ValueError(f"tensor {name[:80]} begins at byte {begin}, but the tensor before it ends at byte {reached}")
        reached = end
    if start + reached != len(blob):
        raise ValueError(f"its tensors end at byte {reached}, but it has {len(blob) - start} bytes for them")
    arrays = {}
    for theirs, ours in choose(tensors).items():
        dtype, shape, begin, _ = tensors[theirs]
        if dtype not in _DTYPES:
            raise ValueError(f"tensor {theirs[:80]} has numbers of the type {dtype[:20]}, which is not read")
        arrays[ours] = np.frombuffer(blob, _DTYPES[dtype], prod(shape), start + begin).reshape(shape)
    return arrays


def _once(pairs):
    """The dictionary of a JSON object; ValueError if a name is there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("its header has a name twice")
    return found


def _place(name, entry, size):
    """Check what the header says of a tensor -> (dtype, shape, begin, end), bytes of the `size` for all tensors."""
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [begin, end]} if (
            len(shape) <= MAX_DIMENSIONS and all(type(n) is int and n < 2**63 for n in (*shape, begin, end))
        ):  # type(n), because True is an int
            width = _DTYPES[dtype].itemsize if dtype in _DTYPES else None
            fits = 0 <= begin <= end <= size and all(n >= 0 for n in shape)
            if not fits or width and end - begin != prod(shape) * width:
                raise ValueError(f"tensor {name[:80]} does not fit its data_offsets")
            return dtype, tuple(shape), begin, end
    raise ValueError(f"tensor {name[:80]} has no dtype, shape and data_offsets of whole numbers")


def load_convolutions(path, names, shapes, norms=None, epsilon=0.0):
    """Load Parameters {our name: W (K, K, C, F), or (K, K, C) of a depthwise convolution, or b (F,)} from a weights file.

    names {our name: tensor name}, shapes {our name: shape of W or b}. norms {weight tensor: prefix of the tensors of the
    batch normalisation behind it}: the normalisation, with `epsilon`, is folded into the weight and into PREFIX.bias.
    Raises: InputError, which names the first mismatches.
    """
    wanted = {*names.values(), *(f"{norm}.{part}" for norm in (norms or {}).values() for part in BATCH_NORM)}
    tensors, arrays, faults = read_weights(path, wanted), {}, []
    for weight, norm in (norms or {}).items():
        if missing := [name for name in (weight, *(f"{norm}.{part}" for part in BATCH_NORM)) if name not in tensors]:
            faults += [f"{name} is missing" for name in missing]
        else:
            tensors |= _folded(tensors, weight, norm, epsilon)
    for ours, theirs in names.items():
        wanted = shapes[ours]
        if theirs not in tensors:
            faults.append(f"{theirs} is missing")
            continue
        x = tensors[theirs]
        x = x.transpose(2, 3, 1, 0) if x.ndim == 4 else x
        x = x[:, :, 0] if len(wanted) == 3 and x.shape[2:3] == (1,) else x
        if x.shape != wanted:
            theirs_wanted = (wanted[-1], *(wanted[2:-1] or (1,)), *wanted[:2]) if len(wanted) > 1 else wanted
            faults.append(f"{theirs} has shape {tensors[theirs].shape}, not {theirs_wanted}")
        if not np.isfinite(x).all():
            faults.append(f"{theirs} has values that are not finite")
        elif x.ndim > 1 and not x.any():
            faults.append(f"{theirs} has only zeros")
        arrays[ours] = x
    if faults:
        found = few(list(dict.fromkeys(faults)))
        raise InputError(f"{path} does not have the weights of this encoder: {found}; give a file that has them")
    return Parameters.of(arrays)


def _folded(tensors, weight, norm, epsilon):
    """gamma (W x - mean) / sqrt(var + epsilon) + beta as a convolution: {weight: W', NORM.bias: beta'}"""
    W, (gamma, beta, mean, var) = tensors[weight], (tensors[f"{norm}.{part}"].astype(float) for part in BATCH_NORM)
    scale = gamma / np.sqrt(var + epsilon)
    folded = W * scale.reshape(-1, *(1,) * (W.ndim - 1)), beta - mean * scale
    return {name: x.astype(np.float32) for name, x in zip((weight, f"{norm}.bias"), folded, strict=True)}
