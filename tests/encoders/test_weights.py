"""Weights files: .pth of both forms, .safetensors and .npz give the same arrays, and a hostile file runs nothing."""

import io
import json
import os
import pickle
import struct
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest

from satnp.encoders import squeezenet
from satnp.encoders.photos import Preprocessing
from satnp.encoders.weights import find_names, read_weights
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


def write_form(path, form, arrays):
    """Arrays {name: x} as "npz", "safetensors", or one of FORMS."""
    if form == "npz":
        with open(path, "wb") as file:  # np.savez adds an ending to a name
            np.savez(file, **arrays)
    elif form == "safetensors":
        write_safetensors(path, arrays)
    else:
        write_arrays(path, form, arrays)


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


NAMES = {  # how programs name torchvision's features.0.weight
    "module.features.0.weight": lambda name: f"module.{name}",
    "model.features.0.weight": lambda name: f"model.{name}",
    "encoder.module.features.0.weight": lambda name: f"encoder.module.{name}",
    "features.module.0.weight": lambda name: name.replace("features.", "features.module."),
    "encoder.0.weight": lambda name: name.replace("features.", "encoder."),
    "module.cnn.0.weight": lambda name: name.replace("features.", "module.cnn."),
    "0.weight": lambda name: name.removeprefix("features."),
}
ALL_FORMS = ["npz", "safetensors", *FORMS]


@pytest.mark.parametrize("form", ALL_FORMS)
@pytest.mark.parametrize("example", NAMES)
def test_names_are_found_behind_one_prefix(tmp_path, example, form):
    arrays = {f"features.{k}.{kind}": np.full((k + 1, 2), k, np.float32) for k in (0, 2, 10) for kind in ("weight", "bias")}
    more = {"classifier.0.weight": np.full(3, 7, np.float32), "module.step": np.ones(1, np.float32)}
    write_form(tmp_path / "w", form, {NAMES[example](name): x for name, x in arrays.items()} | more)
    read = read_weights(tmp_path / "w", arrays)
    assert NAMES[example]("features.0.weight") == example and list(read) == list(arrays)
    for name, x in arrays.items():
        np.testing.assert_array_equal(read[name], x)
    assert set(read_weights(tmp_path / "w")) == {*map(NAMES[example], arrays), *more}


def test_an_encoder_loads_weights_with_a_prefix(tmp_path):
    params, arrays = torch_arrays()
    write_form(tmp_path / "w.ckpt", "zip", {f"model.cnn.{name.removeprefix('features.')}": x for name, x in arrays.items()})
    np.testing.assert_array_equal(squeezenet.load(tmp_path / "w.ckpt", TINY).flat, params.flat)


@pytest.mark.parametrize(
    ("there", "found"),
    [
        (["features.0.w", "features.1.w", "ema.features.0.w", "ema.features.1.w"], ["features.0.w", "features.1.w"]),
        (["classifier.0.w", "classifier.1.w", "features.0.w", "features.1.w"], ["features.0.w", "features.1.w"]),
        (["0.w", "1.w", "module.features.0.w"], ["0.w", "1.w"]),
        (["module.features.0.w", "other"], ["module.features.0.w"]),
        (["classifier.0.w"], []),
        (["features10.w", "xfeatures.0.w", "features.0.ww", ""], []),
        ([], []),
    ],
)
def test_which_prefix_is_chosen(there, found):
    assert list(find_names(["features.0.w", "features.1.w"], there)) == found


def test_a_name_is_not_taken_for_another():
    assert find_names(["a.w"], ["b.w"]) == {} and find_names([], ["b.w"]) == {} and find_names(["a.w", "c.w"], ["b.w"]) == {}
    with pytest.raises(InputError, match="has all weights of the encoder twice, behind 'ema.' and 'model.'; save only"):
        find_names(["a.w", "b.v"], ["ema.a.w", "ema.b.v", "model.a.w", "model.b.v"])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("keys", [["state_dict"], ["model_state_dict"], ["net", "encoder"], ["model", "state_dict"]])
def test_dictionaries_around_the_weights_are_a_prefix(tmp_path, form, keys):
    arrays = {"conv.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "conv.bias": np.ones(2, np.float32)}

    def wrap(state):
        for key in reversed(keys):
            state = table({"epoch": say(3), key: state})
        return state

    path = write_arrays(tmp_path / "w.pth", form, {f"module.{name}": x for name, x in arrays.items()}, wrap)
    read = read_weights(path, arrays)
    assert list(read) == list(arrays)
    np.testing.assert_array_equal(read["conv.weight"], arrays["conv.weight"])


def test_a_dictionary_that_contains_itself_is_read(tmp_path):
    inner = call(ORDERED) + b"q\1(" + say("a") + tensor(storage("zip", "0", 2), 0, (2,), (1,)) + say("b") + b"h\1u"
    path = write(tmp_path / "w.pth", "zip", table({"x": inner, "y": b"h\1"}), {"0": (2, np.ones(2, "<f4").tobytes())})
    assert list(read_weights(path)) == ["x.a"]


@pytest.mark.parametrize("form", ALL_FORMS)
@pytest.mark.parametrize("ending", [".pt", ".bin", ".ckpt", ".PTH", ".pth.tar", ".npz", ".SafeTensors", ".NPZ", ""])
def test_the_content_decides_and_not_the_ending(tmp_path, form, ending):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_form(tmp_path / f"w{ending}", form, {"a": x})
    np.testing.assert_array_equal(read_weights(tmp_path / f"w{ending}")["a"], x)


@pytest.mark.parametrize("ending", [".pt", ".BIN", ".ckpt"])
def test_the_ending_decides_if_the_content_is_damaged(tmp_path, ending):
    write_form(tmp_path / "w", "zip", {"a": np.ones(3, np.float32)})
    (tmp_path / f"w{ending}").write_bytes((tmp_path / "w").read_bytes()[:-30])
    assert "is not a complete .pth file" in refusal(tmp_path / f"w{ending}")


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


def entry(begin, end, shape=None, dtype="F32", **more):
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end], **more}


def write_header(path, header, size=64):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(size))
    return path


NO_NUMBERS = "has no dtype, shape and data_offsets of whole numbers"
HEADERS = {  # what the header of a .safetensors file with 64 bytes of tensors says: (header, words of the sentence)
    "two tensors in one place": ({"a": entry(0, 64), "b": entry(0, 64)}, "tensor b begins at byte 0, but the tensor before"),
    "two tensors that overlap": ({"a": entry(0, 40), "b": entry(36, 64)}, "tensor b begins at byte 36"),
    "one within the other": ({"a": entry(0, 64), "b": entry(8, 16)}, "tensor b begins at byte 8"),
    "500 tensors in one place": ({f"{i}": entry(0, 64) for i in range(500)}, "begins at byte 0"),
    "a hole": ({"a": entry(0, 16), "b": entry(32, 64)}, "tensor b begins at byte 32"),
    "a hole at the start": ({"a": entry(4, 64)}, "tensor a begins at byte 4"),
    "bytes at the end": ({"a": entry(0, 60)}, "its tensors end at byte 60, but it has 64 bytes for them"),
    "no tensors": ({}, "its tensors end at byte 0"),
    "a place outside of the file": ({"a": entry(0, 64), "b": entry(64, 68)}, "tensor b does not fit its data_offsets"),
    "a place of 2^62": ({"a": entry(0, 2**62)}, "does not fit its data_offsets"),
    "a place turned round": ({"a": entry(64, 0, [16])}, "does not fit its data_offsets"),
    "a shape of 2^80": ({"a": entry(0, 64, [2**40, 2**40])}, "does not fit its data_offsets"),
    "a shape that wraps round": ({"a": entry(0, 64, [2**62 + 4, 4])}, "does not fit its data_offsets"),
    "a shape of less than nothing": ({"a": entry(0, 64, [-4, -4])}, "does not fit its data_offsets"),
    "a number of 5,000 digits": (b'{"a": {"dtype": "F32", "shape": [' + 5000 * b"9" + b"]}}", "is not a complete"),
    "a shape beyond 64 bits": ({"a": entry(0, 64, [0, 2**80])}, NO_NUMBERS),
    "a shape of fractions": ({"a": entry(0, 64, [16.0])}, NO_NUMBERS),
    "a shape of truths": ({"a": entry(0, 64, [True, 16])}, NO_NUMBERS),
    "a place of truths": ({"a": entry(0, 64) | {"data_offsets": [False, 64]}}, NO_NUMBERS),
    "a shape of text": ({"a": entry(0, 64, "16")}, NO_NUMBERS),
    "a shape of a shape": ({"a": entry(0, 64, [[16]])}, NO_NUMBERS),
    "100 dimensions": ({"a": entry(0, 64, [1] * 99 + [16])}, NO_NUMBERS),
    "no shape": ({"a": {"dtype": "F32", "data_offsets": [0, 64]}}, NO_NUMBERS),
    "three offsets": ({"a": entry(0, 64) | {"data_offsets": [0, 64, 64]}}, NO_NUMBERS),
    "a list for a tensor": ({"a": [0, 64]}, NO_NUMBERS),
    "a number for a dtype": ({"a": entry(0, 64, dtype=32)}, NO_NUMBERS),
    "numbers of 8 bits": ({"a": entry(0, 64, [64], "F8_E4M3")}, "numbers of the type F8_E4M3, which is not read"),
    "a name twice": (b'{"a": 1, "a": 2}', "its header has a name twice"),
    "a key twice": (b'{"a": {"dtype": "F32", "dtype": "F64"}}', "its header has a name twice"),
    "100,000 names": ({f"{i}": entry(0, 0) for i in range(10**5)}, "has 100000 arrays, but at most 10000 are read"),
    "a long name": ({5000 * "x": entry(0, 64)}, "it has a name of more than 1000 characters"),
    "deep lists": (b'{"a": ' + 10**5 * b"[", "it is nested too deeply"),
    "deep dictionaries": (10**5 * b'{"a":', "it is nested too deeply"),
    "a list": (b"[]", "its header is not a dictionary"),
    "no JSON": (b'{"a"', "is not a complete .safetensors file"),
    "Latin-1": (b'{"caf\xe9": 1}', "is not a complete .safetensors file"),
}


@pytest.mark.parametrize("what", HEADERS)
def test_a_safetensors_header_that_does_not_fit_is_refused(tmp_path, what):
    header, words = HEADERS[what]
    path = write_header(tmp_path / "w.safetensors", header)
    tracemalloc.start()
    assert words in refusal(path)
    assert tracemalloc.get_traced_memory()[1] < 30e6
    tracemalloc.stop()


@pytest.mark.parametrize("length", [65, 10**7, 10**8, 10**9, 2**63, 2**64 - 1])
def test_a_safetensors_header_that_is_too_long_is_refused(tmp_path, length):
    with (tmp_path / "w.safetensors").open("wb") as file:
        file.write(length.to_bytes(8, "little") + b"{")
        file.truncate(min(length + 7, 2 * 10**8))  # a file of holes
    tracemalloc.start()
    assert f"its header has {length} bytes" in refusal(tmp_path / "w.safetensors")
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


def test_safetensors_of_any_order_and_type_are_read(tmp_path):
    header = {
        "__metadata__": {"format": "pt"}, "b": entry(24, 56, [8]), "empty": entry(24, 24, [0, 3]), "a": entry(0, 24, [2, 3]),
        "one": entry(56, 58, [], "I16"), "eight": entry(58, 64, [6], "F8_E5M2"),
    }  # fmt: skip
    path = write_header(tmp_path / "w.safetensors", header)
    path.write_bytes(path.read_bytes()[:-64] + np.arange(14, dtype="<f4").tobytes() + b"\7\0" + bytes(6))
    read = read_weights(path, ["a", "b", "empty", "one"])  # not those of 8 bits
    np.testing.assert_array_equal(read["a"], np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(read["b"], np.arange(6, 14))
    assert read["empty"].shape == (0, 3) and read["one"] == 7 and read["one"].dtype == np.float32


@pytest.mark.parametrize("form", FORMS)
def test_a_pickle_without_end_is_refused(tmp_path, monkeypatch, form):
    monkeypatch.setattr("satnp.files.MAX_ARRAYS", 50)
    monkeypatch.setattr("satnp.encoders.pth.MAX_INSTRUCTIONS", 20_000)
    one = tensor(storage(form, "0", 2), 0, (2,), (1,))
    pieces = {
        "it has 51 arrays, but at most 50 are read": table({f"{i}": one for i in range(51)}),
        "its pickle has more than 20000 instructions": b"](" + 20_000 * b"N" + b"e",
        "it has a name of more than 1000 characters": table({600 * "x": table({600 * "y": one})}),
    }
    for words, piece in pieces.items():
        assert words in refusal(write(tmp_path / "w.pth", form, piece, {"0": (2, bytes(8))}))
    deep = 3000 * (b"}" + say("")) + b"N" + 3000 * b"s"
    assert "it is nested too deeply" in refusal(write(tmp_path / "w.pth", form, deep, {}))


def test_an_npz_that_is_not_what_numpy_writes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("satnp.files.MAX_ARRAYS", 50)
    path, header = tmp_path / "w.npz", io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (2**40,)})
    entries = {
        "1048576 bytes of numbers, which are not (1099511627776,) of float32": [("a.npy", header.getvalue() + bytes(2**20))],
        "it has two entries of the same name": [("a.npy", npy([1])), ("a.npy", npy([2]))],
        "it has two entries of the same": [("a.npy", npy([1])), ("a", npy([2]))],
        "it has 51 arrays, but at most 50 are read": [(f"{i}.npy", npy([1])) for i in range(51)],
        "it has an array of type complex64, not of numbers": [("a.npy", npy([1j], np.complex64))],
        "it has an array of type <U4, not of numbers": [("a.npy", npy(["1.25"]))],
    }
    for words, content in entries.items():
        with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(path, "w") as archive:  # of a name twice
            for name, blob in content:
                archive.writestr(zipfile.ZipInfo(name), blob)
        tracemalloc.start()
        assert words in refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 5e6
        tracemalloc.stop()
    np.savez(path, a=np.array([1e300, 1]))
    assert read_weights(path)["a"].tolist() == [np.inf, 1]  # and no warning of NumPy's


def npy(values, dtype=None):
    file = io.BytesIO()
    np.save(file, np.array(values, dtype))
    return file.getvalue()


@pytest.mark.parametrize("form", ["npz", "zip"])
def test_no_flipped_bit_of_a_file_with_check_sums_gives_other_weights(tmp_path, form):
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2, np.float32)}
    path, refused = tmp_path / "w", 0
    write_form(path, form, arrays)
    whole = path.read_bytes()
    for place in range(len(whole)):
        wrong = bytearray(whole)
        wrong[place] ^= 1 << place % 8
        path.write_bytes(wrong)
        try:
            read = read_weights(path)
        except InputError as error:
            refused += "\n" not in str(error)
            continue
        assert list(read) == list(arrays)
        for name, x in arrays.items():
            np.testing.assert_array_equal(read[name], x, err_msg=f"{place}")
    assert refused > len(whole) / 2


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
