"""Weights files: .pth of both forms, .safetensors and .npz give the same arrays, and a hostile file runs nothing."""

import json
import os
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from satnp.encoders import squeezenet
from satnp.encoders.photos import Preprocessing
from satnp.encoders.weights import read_weights
from satnp.errors import InputError

TINY = squeezenet.Config(Preprocessing(39, "BGR", (104.0, 117.0, 123.0), 1.0))
FORMS = ["zip", "legacy"]
ORDERED, REBUILD = "collections.OrderedDict", "torch._utils._rebuild_tensor_v2"
FLOAT = "torch.FloatStorage"


# What torch.save writes, made without torch: pieces of a pickle that push one value each.


def say(value):
    return pickle.dumps(value, 2)[2:-1]


def name(function):
    return "c{}\n{}\n".format(*function.rsplit(".", 1)).encode()


def call(function, *args):
    return name(function) + b"(" + b"".join(args) + b"tR"


def table(values):
    """An OrderedDict of {name: piece}."""
    return call(ORDERED) + b"(" + b"".join(say(key) + piece for key, piece in values.items()) + b"u"


def pairs_of_python2(values):
    """The list of [name, value] that Python 2 gives to OrderedDict, the names as byte strings."""
    pairs = (b"](U" + bytes([len(key)]) + key.encode() + piece + b"e" for key, piece in values.items())
    return b"](" + b"".join(pairs) + b"e"


def storage(form, key, size, kind=FLOAT, word="storage"):
    view = say(None) if form == "legacy" else b""
    return b"(" + say(word) + name(kind) + say(key) + say("cpu") + say(size) + view + b"tQ"


def tensor(stored, offset, shape, strides, rebuild=REBUILD):
    more = [say(False), call(ORDERED)] if rebuild == REBUILD else []
    return call(rebuild, stored, say(offset), say(shape), say(strides), *more)


def write(path, form, state, records):
    """A file of `form` with the piece `state` as its state dict; records {key: (number of elements, bytes)}."""
    program = b"\x80\x02" + state + b"."
    if form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("any/data.pkl", program)
            archive.writestr("any/byteorder", "little")
            for key, (_, blob) in records.items():
                archive.writestr(f"any/data/{key}", blob)
            archive.writestr("any/version", "3\n")
    else:
        system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
        parts = [pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, system)]
        parts += [program, pickle.dumps(list(records), 2)]
        parts += [struct.pack("<q", size) + blob for size, blob in records.values()]
        path.write_bytes(b"".join(parts))
    return path


def write_arrays(path, form, arrays, wrap=lambda state: state, rebuild=REBUILD):
    """Contiguous float32 arrays {name: x}, each in a storage of its own."""
    pieces, records = {}, {}
    for i, (key, x) in enumerate(arrays.items()):
        strides = tuple(n // 4 for n in np.zeros(x.shape, np.float32).strides)
        pieces[key] = tensor(storage(form, f"{i}", x.size), 0, x.shape, strides, rebuild)
        records[f"{i}"] = x.size, x.astype("<f4").tobytes()
    return write(path, form, wrap(table(pieces)), records)


def refusal(path):
    """The one sentence that a file is refused with."""
    with pytest.raises(InputError) as error:
        read_weights(path)
    sentence = str(error.value)
    assert str(path) in sentence and "\n" not in sentence and len(sentence) < len(str(path)) + 400
    return sentence


def torch_arrays():
    """Random weights under torchvision's names and in its layout, and what squeezenet.load must make of them."""
    params = squeezenet.init(TINY, np.random.default_rng(0))
    arrays = {}
    for ours, theirs in squeezenet.tensor_names(TINY).items():
        x = params[ours]
        arrays[theirs] = np.ascontiguousarray(x.transpose(3, 2, 0, 1)) if x.ndim == 4 else x
    return params, arrays


def write_safetensors(path, arrays, dtype="F32"):
    header, blobs, start = {"__metadata__": {"format": "pt"}}, [], 0
    for key, x in arrays.items():
        blob = bfloat16(x) if dtype == "BF16" else x.astype({"F32": "<f4", "F16": "<f2", "F64": "<f8"}[dtype]).tobytes()
        header[key] = {"dtype": dtype, "shape": x.shape, "data_offsets": [start, start + len(blob)]}
        start += len(blob)
        blobs.append(blob)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blobs))


def bfloat16(x):
    """The upper two bytes of each float32."""
    return np.ascontiguousarray(x, "<f4").view("<u2").reshape(-1)[1::2].tobytes()


# What is read


@pytest.mark.parametrize("kind", ["npz", "F32", "F16", "BF16", "F64", *FORMS])
def test_weights_are_read_from_public_files(tmp_path, kind):
    params, arrays = torch_arrays()
    path = tmp_path / ("w.npz" if kind == "npz" else "w.pth" if kind in FORMS else "w.safetensors")
    if kind == "npz":
        np.savez(path, **arrays)
    elif kind in FORMS:
        write_arrays(path, kind, arrays)
    else:
        write_safetensors(path, arrays, kind)
    loaded = squeezenet.load(path, TINY)
    assert loaded.shapes == params.shapes and loaded.flat.dtype == np.float32
    short = {"F16": 2**-11, "BF16": 2**-7}
    np.testing.assert_allclose(loaded.flat, params.flat, rtol=short.get(kind, 0), atol=1e-7 if kind in short else 0)


def test_the_four_files_of_squeezenet_give_the_same_features(shared_data):
    config, folder = squeezenet.Config(), shared_data / "cnn"
    with np.load(folder / "golden_squeezenet1_1.npz") as golden:
        image = next(golden[key] for key in golden.files if key.endswith("/rgb_uint8"))[None]

    def features(file):
        return squeezenet.feature_map(squeezenet.load(folder / file, config), config, image)[0]

    wanted = features("squeezenet1_1.safetensors")
    assert (wanted > 100).any()
    for file in ("squeezenet1_1_zip.pth", "squeezenet1_1_legacy.pth"):
        np.testing.assert_array_equal(features(file), wanted)
    half = features("squeezenet1_1.npz")
    assert np.linalg.norm(half - wanted) <= 1e-3 * np.linalg.norm(wanted)


@pytest.mark.parametrize("form", FORMS)
def test_views_of_one_storage_keep_their_offsets_and_strides(tmp_path, form):
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    one = storage(form, "a", 24)
    views = {
        "whole": tensor(one, 0, (2, 3, 4), (12, 4, 1)),
        "transposed": tensor(one, 0, (4, 2, 3), (1, 12, 4)),
        "part": tensor(one, 13, (2, 3), (4, 1)),
        "scalar": tensor(one, 23, (), ()),
        "empty": tensor(one, 24, (0, 5), (5, 1)),
        "long way round": tensor(one, 5, (1, 2), (1000, 12)),
    }
    read = read_weights(write(tmp_path / "w.pth", form, table(views), {"a": (24, x.tobytes())}))
    wanted = {
        "whole": x,
        "transposed": x.transpose(2, 0, 1),
        "part": x[1, :2, 1:4],
        "scalar": x[1, 2, 3],
        "empty": np.zeros((0, 5)),
        "long way round": x[None, :, 1, 1],
    }
    assert list(read) == list(wanted)
    for key, y in wanted.items():
        assert read[key].dtype == np.float32 and read[key].shape == y.shape, key
        np.testing.assert_array_equal(read[key], y, err_msg=key)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place", ["torch", "torch.cuda"])
def test_every_type_of_number_becomes_float32(tmp_path, form, place):
    x = np.array([0, 1, -2.5, 3, 0.15625, 256], np.float32)
    blobs = {"Half": "<f2", "Float": "<f4", "Double": "<f8", "Long": "<i8"}
    blobs = {kind: x.astype(dtype).tobytes() for kind, dtype in blobs.items()}
    blobs["BFloat16"] = bfloat16(x)
    pieces = {k: tensor(storage(form, k, 6, f"{place}.{k}Storage"), 0, (6,), (1,)) for k in blobs}
    read = read_weights(write(tmp_path / "w.pth", form, table(pieces), {k: (6, blob) for k, blob in blobs.items()}))
    for key, y in read.items():
        assert y.dtype == np.float32
        np.testing.assert_array_equal(y, x.astype(int) if key == "Long" else x, err_msg=key)


@pytest.mark.parametrize("form", FORMS)
def test_a_state_dict_is_found_inside_a_checkpoint(tmp_path, form):
    arrays = {"module.a": np.arange(6, dtype=np.float32).reshape(2, 3), "module.b": np.ones(2, np.float32)}
    for wrapper in ("state_dict", "model"):
        path = write_arrays(
            tmp_path / "w.pth",
            form,
            arrays,
            lambda state, wrapper=wrapper: table({"epoch": say(3), wrapper: state, "rates": say([0.1, (1, None, True)])}),
        )
        assert list(read_weights(path)) == [f"{wrapper}.module.a", f"{wrapper}.module.b"]
        read = read_weights(path, ["a", "b"])
        assert list(read) == ["a", "b"]
        np.testing.assert_array_equal(read["a"], arrays["module.a"])


@pytest.mark.parametrize("form", FORMS)
def test_how_older_and_other_programs_wrote_is_read(tmp_path, form):
    """Tensors from before 0.4 (as in the public VGG-19), parameters, the versions of modules, Python 2's OrderedDict."""
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}
    path = write_arrays(tmp_path / "w.pth", form, arrays, rebuild="torch._utils._rebuild_tensor")
    np.testing.assert_array_equal(read_weights(path)["a"], arrays["a"])
    data = tensor(storage(form, "0", 6), 0, (2, 3), (3, 1))
    pieces = {
        "modern": call("torch._utils._rebuild_parameter", data, say(True), call(ORDERED)),
        "old": call("torch.nn.parameter.Parameter", data) + say((True, False, None)) + b"b",
    }
    versions = b"}" + say("_metadata") + table({"": say({"version": 1})}) + b"sb"
    record = {"0": (6, arrays["a"].tobytes())}
    for state in (table(pieces) + versions, call(ORDERED, pairs_of_python2(pieces))):
        read = read_weights(write(path, form, state, record))
        assert list(read) == ["modern", "old"]
        np.testing.assert_array_equal(read["old"], arrays["a"])
        np.testing.assert_array_equal(read["modern"], arrays["a"])


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_binary_protocol_of_pickle_is_read(tmp_path, protocol):
    write_arrays(tmp_path / "w.pth", "zip", {"a": np.arange(3, dtype=np.float32)})
    with zipfile.ZipFile(tmp_path / "w.pth") as archive:
        record = archive.read("any/data/0")
    checkpoint = {"epoch": 3, "rate": 0.5, "long": -(2**70), "names": ["x", "y"], "pair": (1, 2), "none": None, "yes": True}
    weights = table({"a": tensor(storage("zip", "0", 3), 0, (3,), (1,))})
    state = pickle.dumps(checkpoint, protocol).removesuffix(b".") + say("state_dict") + weights + b"s"
    path = write(tmp_path / "v.pth", "zip", state, {"0": (3, record)})
    np.testing.assert_array_equal(read_weights(path, ["a"])["a"], [0, 1, 2])


# What is refused


class Calls:
    """An object whose pickle calls a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


class Remembers:
    """An object whose pickle sets a state."""

    def __getstate__(self):
        return {"file": self.file}

    def __setstate__(self, state):
        open(state["file"], "w").close()


@pytest.mark.parametrize("form", [*FORMS, "bare"])
@pytest.mark.parametrize("protocol", range(6))
def test_a_file_that_asks_for_a_function_is_refused_by_name_and_runs_nothing(tmp_path, form, protocol):
    sentinel = tmp_path / "it-ran"
    remembers = Remembers()
    remembers.file = str(sentinel)
    system = Calls(os.system, f"touch {sentinel}")
    hostile = {
        f"{os.system.__module__}.system": system,
        "builtins.eval" if protocol > 2 else "__builtin__.eval": Calls(eval, f"open({str(sentinel)!r}, 'w').close()"),
        f"{__name__}.Remembers" if protocol > 1 else "copy_reg._reconstructor": remembers,
        "builtins.print" if protocol > 2 else "__builtin__.print": Calls(print, Calls(print, system)),
    }
    for asked, thing in hostile.items():
        program = pickle.dumps(thing, protocol)
        pickle.loads(program)
        sentinel.unlink()
        path = tmp_path / "w.pth"
        if form == "bare":
            path.write_bytes(program)
        else:
            write(path, form, program.removesuffix(b"."), {})
        assert asked in refusal(path) and "which was not run" in refusal(path)
        assert not sentinel.exists(), asked


@pytest.mark.parametrize("form", FORMS)
def test_what_is_hidden_among_tensors_is_refused_by_name(tmp_path, form):
    sentinel = tmp_path / "it-ran"
    good = tensor(storage(form, "0", 2), 0, (2,), (1,))
    system = f"{os.system.__module__}.system"
    attacks = {
        system: good + call(system, say(f"touch {sentinel}")) + b"0",
        "a call in a call": call(ORDERED, call(ORDERED, call(system, say(f"touch {sentinel}")))),
        "a function as a dictionary's method": call(ORDERED) + b"}" + say("__setstate__") + name(system) + b"sb",
        "numpy": pickle.dumps(np.zeros(3), 2)[2:-1],
        "a class that is made": name("subprocess.Popen") + b"(" + say(["touch", str(sentinel)]) + b"t\x81",
        "torch's own": call("torch.load", say("other.pth")),
        "a name inside a name": name("torch._utils.os.system"),
        "copyreg": b"\x82\x01",
        "an old instance": b"(" + say(f"touch {sentinel}") + b"i" + name(system)[1:],
        "bytes": pickle.dumps(b"bytes", 3)[2:-1],
    }
    for what, piece in attacks.items():
        path = write(tmp_path / "w.pth", form, table({"a": good, "b": piece}), {"0": (2, bytes(8))})
        sentence = refusal(path)
        assert "asks for" in sentence and "which was not run" in sentence, what
        assert not sentinel.exists(), what
    assert "_reconstruct" in refusal(write(path, form, attacks["numpy"], {}))
    assert "IntStorage" in refusal(write(path, form, storage(form, "0", 1, "torch.IntStorage"), {}))
    assert "'module'" in refusal(write(path, form, storage(form, "0", 1, word="module"), {}))
    assert "'storage'" in refusal(write(path, form, storage(form, "0", 1, ORDERED), {}))
    view = storage("legacy", "0", 1).removesuffix(say(None) + b"tQ") + say(("1", 0, 1)) + b"tQ"
    assert "'storage'" in refusal(write(path, form, view, {}))
    assert "INST" in refusal(write(path, form, attacks["an old instance"], {}))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("piece", "words"),
    [
        (say(3) + b"(" + say("ls") + b"tR", "calls an object that is not a function"),
        (say("os.system") + b"(" + say("ls") + b"tR", "calls an object that is not a function"),
        (name(FLOAT) + b"(tR", "calls an object that is not a function"),
        (say(ORDERED) + b"(tR", "calls an object that is not a function"),
        (say("os") + say(7) + b"\x93", "names a function with a value that is not text"),
        (say((1, 2)) + b"}b", "sets the state of an object that has no state"),
        (name(REBUILD) + say({"__code__": 1}) + b"b", "sets the state of an object that has no state"),
        (say([]) + say(1) + say(2) + b"s", "sets items of an object that is not a dictionary"),
        (b"}" + say((1, (2, 3))) + say(2) + b"s", "keys other than strings and integers"),
        (b"r\xff\xff\xff\x7f" * 3 + b"j\xfe\xff\xff\x7f", "is not a complete .pth file"),
        (b"X\xff\xff\xff\xff", "is not a complete .pth file"),
        (b"0", "asks for the pickle instruction POP"),
        (b"aa", "is not a complete .pth file"),
        (b"(tttt", "is not a complete .pth file"),
        (say("a plain text"), "has no named tensors"),
        (say({"epoch": 3}), "has no named tensors"),
    ],
)
def test_a_pickle_that_is_no_state_dict_is_refused(tmp_path, form, piece, words):
    assert words in refusal(write(tmp_path / "w.pth", form, piece, {}))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("offset", "shape", "strides", "words"),
    [
        (0, (2**40, 2**40), (2**40, 1), "does not fit its storage"),
        (0, (7,), (1,), "does not fit its storage"),
        (1, (2, 3), (3, 1), "does not fit its storage"),
        (7, (0,), (1,), "does not fit its storage"),
        (0, (3,), (3,), "does not fit its storage"),
        (6, (), (), "does not fit its storage"),
        (2**62, (1,), (1,), "does not fit its storage"),
        (0, (2**40,), (0,), "overlaps itself"),
        (0, (2, 2), (0, 1), "overlaps itself"),
        (0, (3, 3), (1, 1), "overlaps itself"),
        (0, (3, 3), (1, 2), "overlaps itself"),
        (-1, (3,), (1,), "not an integer of 0 or more"),
        (5, (3,), (-1,), "not an integer of 0 or more"),
        (0, (-2, -3), (3, 1), "not an integer of 0 or more"),
        (0, (2.0, 3), (3, 1), "not an integer of 0 or more"),
        (True, (3,), (1,), "not an integer of 0 or more"),
        (0, ("3",), (1,), "not an integer of 0 or more"),
        (0, (2, 3), (1,), "is not a complete .pth file"),
        (0, 6, 1, "is not a complete .pth file"),
        (0, (1,) * 99, (1,) * 99, "is not a complete .pth file"),
        (0, (1,), (2**80,), "is not a complete .pth file"),
        (0, (0, 2**62, 2**62), (1, 0, 0), "overlaps itself"),
        (0, (0, 2**62), (1, 1), "is not a complete .pth file"),
    ],
)
def test_a_tensor_that_does_not_fit_its_storage_is_refused(tmp_path, form, offset, shape, strides, words):
    state = table({"a": tensor(storage(form, "0", 6), offset, shape, strides)})
    path = write(tmp_path / "w.pth", form, state, {"0": (6, bytes(24))})
    tracemalloc.start()
    assert words in refusal(path)
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


@pytest.mark.parametrize("form", FORMS)
def test_a_tensor_without_a_storage_is_refused(tmp_path, form):
    for stored in (say("0"), say(None), call(ORDERED), tensor(storage(form, "0", 6), 0, (6,), (1,))):
        state = table({"a": tensor(stored, 0, (6,), (1,)), "b": tensor(storage(form, "0", 6), 0, (6,), (1,))})
        assert "tensor 'a' has no storage" in refusal(write(tmp_path / "w.pth", form, state, {"0": (6, bytes(24))}))


@pytest.mark.parametrize("form", FORMS)
def test_many_views_of_one_storage_cost_one_storage(tmp_path, form):
    n = 2**17
    views = {f"{i}": tensor(storage(form, "0", n, "torch.HalfStorage"), 0, (n,), (1,)) for i in range(100)}
    path = write(tmp_path / "w.pth", form, table(views), {"0": (n, bytes(2 * n))})
    tracemalloc.start()
    assert len(read_weights(path)) == 100
    assert tracemalloc.get_traced_memory()[1] < 20 * n
    tracemalloc.stop()


@pytest.mark.parametrize("form", FORMS)
def test_a_storage_that_is_missing_or_of_another_size_is_refused(tmp_path, form):
    path, state = tmp_path / "w.pth", table({"a": tensor(storage(form, "k", 6), 0, (6,), (1,))})
    for records in ({}, {"other": (6, bytes(24))}, {"k": (5, bytes(20))}, {"k": (7, bytes(28))}, {"k": (6, bytes(23))}):
        assert "is not a complete .pth file" in refusal(write(path, form, state, records))
    words = {"zip": "any/data/k", "legacy": "none of its tensors is in storage 0"}[form]
    assert words in refusal(write(path, form, state, {"other": (6, bytes(24))}))
    twice = {"a": tensor(storage(form, "k", 6), 0, (6,), (1,)), "b": tensor(storage(form, "k", 7), 0, (6,), (1,))}
    assert "two types or sizes" in refusal(write(path, form, table(twice), {"k": (6, bytes(24))}))
    for size in (-6, True, 2**62, 2**200):
        state = table({"a": tensor(storage(form, "k", size), 0, (1,), (1,))})
        assert "is not a complete .pth file" in refusal(write(path, form, state, {"k": (6, bytes(24))}))


def test_a_legacy_file_whose_storage_claims_to_be_huge_is_refused(tmp_path):
    for size in (2**40, 2**63 - 1, -1):
        state = table({"a": tensor(storage("legacy", "k", size), 0, (1,), (1,))})
        assert "24 are left" in refusal(write(tmp_path / "w.pth", "legacy", state, {"k": (size, bytes(24))}))


def test_a_legacy_file_from_a_big_endian_machine_is_refused(tmp_path):
    path = write_arrays(tmp_path / "w.pth", "legacy", {"a": np.zeros(3, np.float32)})
    whole = path.read_bytes()
    true = whole.index(b"\x88", whole.index(b"little_endian"))
    path.write_bytes(whole[:true] + b"\x89" + whole[true + 1 :])
    assert "not little-endian" in refusal(path)


@pytest.mark.parametrize(
    "kind", ["a size that is not there", "compressed zeros", "an entry twice", "two pickles", "none", "big-endian"]
)
def test_a_zip_that_is_not_what_torch_writes_is_refused(tmp_path, kind):
    path = write_arrays(tmp_path / "w.pth", "zip", {"a": np.zeros(1000, np.float32)})
    read_weights(path)
    with zipfile.ZipFile(path) as archive:
        entries = {key: archive.read(key) for key in archive.namelist()}
    if kind == "two pickles":
        entries["other/data.pkl"] = entries["any/data.pkl"]
    if kind == "none":
        del entries["any/data.pkl"]
    if kind == "big-endian":
        entries["any/byteorder"] = b"big"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if kind == "compressed zeros" else zipfile.ZIP_STORED) as archive:
        for key, blob in entries.items():
            archive.writestr(key, blob)
        if kind == "a size that is not there":
            archive.getinfo("any/data/0").file_size = 2**40
        if kind == "an entry twice":
            archive.filelist += [archive.getinfo("any/data/0")] * 1000
    words = {"two pickles": "2 entries data.pkl", "none": "0 entries data.pkl", "big-endian": "not little-endian"}
    tracemalloc.start()
    assert words.get(kind, "entries declare") in refusal(path)
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


@pytest.mark.parametrize("form", FORMS)
def test_a_file_cut_short_anywhere_is_refused(tmp_path, form):
    path = write_arrays(tmp_path / "w.pth", form, {"a": np.ones((2, 3), np.float32), "b": np.ones(2, np.float32)})
    whole = path.read_bytes()
    assert len(read_weights(path)) == 2
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert "is not a complete .pth file" in refusal(path), length


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@pytest.mark.parametrize("form", FORMS)
def test_a_file_with_a_wrong_byte_is_read_or_refused_in_one_sentence(tmp_path, form, rng):
    path = write_arrays(tmp_path / "w.pth", form, {"a": np.ones((2, 3), np.float32), "b": np.ones(2, np.float32)})
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    refused = 0
    for _ in range(1000):
        wrong = whole.copy()
        wrong[rng.integers(len(wrong))] = rng.integers(256)
        path.write_bytes(wrong.tobytes())
        try:
            assert all(x.size <= 6 and x.dtype == np.float32 for x in read_weights(path).values())
        except InputError as error:
            refused += "\n" not in str(error)
    assert refused > 300


def test_every_weight_that_does_not_fit_is_named(tmp_path):
    _, arrays = torch_arrays()
    del arrays["features.0.bias"]
    arrays["features.3.squeeze.weight"] = np.zeros((16, 3, 1, 1), np.float32)
    np.savez(tmp_path / "w.npz", **arrays)
    write_arrays(tmp_path / "w.pth", "legacy", arrays)
    for path in (tmp_path / "w.npz", tmp_path / "w.pth"):
        with pytest.raises(InputError, match=r"features\.0\.bias is missing; features\.3\.squeeze\.weight has shape"):
            squeezenet.load(path, TINY)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("w.npz", None, "there is no weights file"),
        ("w.pickle", b"x", "give a .pth, .safetensors or .npz file"),
        ("w.npz", b"x", "is not a complete .npz file"),
        ("w.pth", b"", "is not a complete .pth file"),
        ("w.pth", b"x", "is not a complete .pth file"),
        ("w.pth", b"<html>not found</html>", "is not a complete .pth file"),
        ("w.pth", pickle.dumps(1001), "neither a zip entry nor PyTorch's magic number"),
        ("w.safetensors", (9).to_bytes(8, "little") + b"{not json", "is not a complete .safetensors file"),
        ("w.safetensors", (10**5).to_bytes(8, "little") + b"[" * 10**5, "is not a complete .safetensors file"),
    ],
)
def test_a_weights_file_that_cannot_be_read_is_refused(tmp_path, file, content, words):
    if content is not None:
        (tmp_path / file).write_bytes(content)
    assert words in refusal(tmp_path / file)


def test_a_truncated_safetensors_file_is_refused(tmp_path):
    write_safetensors(tmp_path / "w.safetensors", {"a": np.zeros((3, 4))})
    whole = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(whole[:-4])
    assert "tensor a does not fit its data_offsets" in refusal(tmp_path / "w.safetensors")


def test_an_npz_of_words_is_refused(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.array(["word"]))
    assert "is not a complete .npz file" in refusal(tmp_path / "w.npz")


# Against PyTorch, where it is there


def torch_states(torch):
    """State dicts with what real ones hold."""
    torch.manual_seed(0)
    x = torch.randn(4, 5, 6)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.randn(2, 3, 5, 5)).sum().backward()
    optimizer.step()
    return {
        "views of one storage": {"x": x, "t": x.transpose(0, 2), "part": x[1:3, ::2, 1:], "row": x[2, 3], "one": x[3, 4, 5]},
        "types": {str(t): (9 * x).to(t) for t in (torch.half, torch.bfloat16, torch.float32, torch.float64, torch.int64)},
        "turned half": {"a": x.half().permute(2, 0, 1), "b": x.bfloat16()[:, 2].T},
        "edges": {"none": torch.zeros(0, 3), "scalar": torch.tensor(3.5)},
        "channels last": {"x": x[None].to(memory_format=torch.channels_last)},
        "a module": net.state_dict(),
        "parameters": dict(net.named_parameters()),
        "a parallel module": torch.nn.DataParallel(net).state_dict(),
        "a checkpoint": {"epoch": 3, "state_dict": net.state_dict(), "optimizer": optimizer.state_dict(), "best": 0.5},
    }


@pytest.mark.parametrize("new", [True, False], ids=FORMS)
@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_what_torch_saved_equals_what_torch_loads(tmp_path, new, protocol):
    torch = pytest.importorskip("torch")
    for what, state in torch_states(torch).items():
        torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=new, pickle_protocol=protocol)
        wanted = torch.load(tmp_path / "w.pth", weights_only=False)
        wanted = wanted.get("state_dict", wanted)
        names = [key.removeprefix("module.") for key in wanted]
        read = read_weights(tmp_path / "w.pth", names)
        assert list(read) == names, what
        for (key, x), y in zip(read.items(), wanted.values(), strict=True):
            assert x.dtype == np.float32 and x.shape == y.shape, (what, key)
            np.testing.assert_array_equal(x, y.detach().float().numpy(), err_msg=f"{what}: {key}")


@pytest.mark.parametrize("new", [True, False], ids=FORMS)
def test_what_torch_saved_beside_tensors_of_these_types_is_refused(tmp_path, new):
    torch = pytest.importorskip("torch")
    net = torch.nn.Linear(2, 3)
    refused = {
        "torch.nn.modules.linear.Linear": net,
        "torch.IntStorage": {"a": torch.zeros(3, dtype=torch.int32)},
        "overlaps itself": {"a": torch.zeros(1).expand(1000)},
        "_reconstruct": {"state_dict": net.state_dict(), "mean": np.zeros(3)},
    }
    for words, thing in refused.items():
        torch.save(thing, tmp_path / "w.pth", _use_new_zipfile_serialization=new)
        assert words in refusal(tmp_path / "w.pth")
