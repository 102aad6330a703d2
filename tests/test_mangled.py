"""Every mangled input that people have, through the command line: one sentence, status 2, and nothing of theirs touched."""

import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from satnp.checkpoint import load, save
from satnp.cli import main
from satnp.data.datasets import load_split
from satnp.errors import InputError
from satnp.training.presets import find_preset, new_model
from satnp.training.trainer import Trainer
from tests.data.test_datasets import (
    mangle,
    write_coco,
    write_karpathy,
    write_names,
    write_token,
    write_tsv,
    write_tsv_with_lists,
)
from tests.encoders.test_photos import write_chunks
from tests.encoders.test_weights import (
    call,
    name,
    say,
    storage,
    table,
    tensor,
    torch_arrays,
    write,
    write_arrays,
    write_form,
    write_safetensors,
)
from tests.small_world import write_flickr8k

TINY = (
    "[config]\nM = 6\nH = 8\nA = 4\ndropout = 0.0\n"
    "[recipe]\nepochs = 2\nbatch_size = 8\nmin_count = 1\nmirror = false\naveraging = 0.0\nsave_every = 3\n"
)
CAPTION = "caption {w}/best.npz {t}/x.jpg --beam 1 --figures {t}/figures --json {t}/out.json"
CHECKPOINT = "caption {t}/c.npz {w}/photo.jpg --beam 1 --figures {t}/figures --json {t}/out.json"
BEST = CHECKPOINT.replace("{t}/c", "{w}/best")
SMALL = "--encoder small --config {w}/tiny.toml --out {t}/new"
TRAIN = "train --data flickr8k --root {w}/data " + SMALL
RESUME = "train --data flickr8k --root {w}/data --encoder small --config {w}/tiny.toml --out {t}/run --resume"
WEIGHTS = "train --data flickr8k --root {w}/data --out {t}/new --weights {t}/"
CONFIG = "train --data flickr8k --root {w}/data --encoder small --out {t}/new --config {t}/c.toml"
REPOSITORY = Path(__file__).parents[1]
SATNP = sys.executable, "-m", "satnp"


def data(kind):
    return f"train --data {kind} --root {{t}}/data {SMALL}"


@pytest.fixture(scope="module")
def world(encoders, tmp_path_factory):
    """Data, a checkpoint `best.npz`, and `run`, a training that has just begun."""
    w = tmp_path_factory.mktemp("mangled")
    write_flickr8k(w / "data", 8, 3, 2)
    shutil.copy(w / "data/Flicker8k_Dataset/test-00000.jpg", w / "photo.jpg")
    (w / "tiny.toml").write_text(TINY)
    preset = replace(find_preset("flickr8k", path=w / "tiny.toml"), encoder="small")
    train, val = (load_split("flickr8k", split, w / "data") for split in ("train", "val"))
    model = new_model(preset, train)
    save(w / "best.npz", model, step=1)
    Trainer(model, preset.recipe, train, val, w / "run").save()
    return w


# What becomes of the files: each is called with the folder of the test and the world


def content(file, what):
    """A file with these bytes, or this text."""
    return lambda t, w: (t / file).write_bytes(what if isinstance(what, bytes) else what.encode())


def cut_photo(kind, part):
    def make(t, w):
        Image.open(w / "photo.jpg").save(t / "whole", kind)
        (t / "x.jpg").write_bytes((t / "whole").read_bytes()[: int(part * (t / "whole").stat().st_size)])

    return make


def png_of(columns, rows):
    header = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)
    return lambda t, w: write_chunks(t / "x.jpg", (b"IHDR", header), (b"IDAT", b"no pixels"))


KINDS = {
    write_tsv: "folder", write_tsv_with_lists: "folder", write_names: "folder", write_token: "flickr30k",
    write_karpathy: "karpathy", write_coco: "coco",
}  # fmt: skip


def form(write, file, change):
    """A data set of test_datasets with one change, and a training on it."""

    def make(t, w):
        write(t / "data")
        mangle(t / "data" / file, change)

    return make, data(KINDS[write])


def flickr8k(file, change):
    def make(t, w):
        shutil.copytree(w / "data", t / "data")
        mangle(t / "data" / file, change)

    return make


def cut(length):
    return lambda t, w: (t / "c.npz").write_bytes((w / "best.npz").read_bytes()[:length])


def arrays_of(path):
    with np.load(path) as archive:
        return {key: archive[key] for key in archive.files}


def checkpoint(change, source="best.npz", file="c.npz"):
    """A checkpoint whose {name: array} went through `change`."""

    def make(t, w):
        arrays = arrays_of(w / source)
        (t / file).parent.mkdir(exist_ok=True)
        np.savez(t / file, **{key: x for key, x in (arrays | change(arrays)).items() if x is not None})

    return make


def header(change, **more):
    def changed(arrays):
        found = json.loads(str(arrays["header"]))
        change(found)
        return {"header": np.array(json.dumps(found))}

    return checkpoint(changed, **more)


def words(change):
    return header(lambda found: found["model"].update(vocabulary=change(found["model"]["vocabulary"])))


def claims(shape):
    """An array of the zip that says it has another shape."""

    def make(t, w):
        with zipfile.ZipFile(w / "best.npz") as whole, zipfile.ZipFile(t / "c.npz", "w") as archive:
            for entry in whole.namelist():
                blob = whole.read(entry)
                if entry == "params/decoder.b_o.npy":
                    blob = npy_header(shape)
                archive.writestr(entry, blob)

    return make


def npy_header(shape):
    text = str({"descr": "<f4", "fortran_order": False, "shape": shape})
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text) + 1) + text.encode() + b"\n"


def patched(offset, value):
    """A field of the zip's first entry changed, in both places where it is written."""

    def make(t, w):
        blob = bytearray((w / "best.npz").read_bytes())
        central = blob.index(b"PK\1\2")
        for start in (blob.index(b"PK\3\4") + offset, central + offset + 2):
            blob[start : start + 2] = struct.pack("<H", value)
        (t / "c.npz").write_bytes(blob)

    return make


def bracket(t, w):
    """One bit of the spaces behind the header of the first array: Python's tokenizer fails at what comes of it."""
    blob = bytearray((w / "best.npz").read_bytes())
    blob[blob.index(b"}      ") + 4] ^= 8
    (t / "c.npz").write_bytes(blob)


def encoder(form):
    """Weights of an encoder as c.npz."""

    def make(t, w):
        write_form(t / "c.npz", form, torch_arrays()[1])

    return make


def weights(file, change):
    """A weights file whose {name: array} went through `change`, and a training with it."""

    def make(t, w):
        _, arrays = torch_arrays()
        change(arrays)
        if file.endswith(".npz"):
            np.savez(t / file, **arrays)
        elif file.endswith(".safetensors"):
            write_safetensors(t / file, arrays)
        else:
            write_arrays(t / file, "zip", arrays)

    return make, WEIGHTS + file


def pth(piece):
    """A .pth whose tensor `a` is this piece of a pickle, and a training with it."""
    return lambda t, w: write(t / "w.pth", "zip", table({"a": piece}), {"0": (2, bytes(8))}), WEIGHTS + "w.pth"


def cut_weights(file, form, part):
    def make(t, w):
        _, arrays = torch_arrays()
        write_safetensors(t / file, arrays) if form is None else write_arrays(t / file, form, arrays)
        (t / file).write_bytes((t / file).read_bytes()[: int(part * (t / file).stat().st_size)])

    return make, WEIGHTS + file


def safetensors(begin, end):
    text = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [begin, end]}}).encode()
    return content("w.safetensors", len(text).to_bytes(8, "little") + text + bytes(8)), WEIGHTS + "w.safetensors"


def run(change=lambda t: None):
    def make(t, w):
        shutil.copytree(w / "run", t / "run")
        change(t)

    return make


def nothing(t, w):
    pass


def folder(file):
    return lambda t, w: (t / file).mkdir()


ONE = storage("zip", "0", 2)
GOOD = tensor(ONE, 0, (2,), (1,))
TSV, LIST, JSON, VAL = "captions.tsv", "val.txt", "captions.json", "annotations/captions_val2014.json"
LAST = {"source": "run/last.npz", "file": "run/last.npz"}
KARPATHY, TEXT = "dataset_coco.json", "Flickr8k_text/Flickr8k.token.txt"
HUGE = "x.jpg ", "at most 100 megapixels are read; give a smaller"
FLAT = "x.jpg has ", " pixels; at most 65500 a side are read; give a smaller copy"
EPS = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
NO_PHOTO = "x.jpg cannot be read as a photo (", "; give a whole, readable JPEG or PNG file"
BROKEN = "c.npz is not a complete checkpoint ("
NO_CHECKPOINT, GIVE = "c.npz is not a checkpoint of satnp, but a {} file; give the best.npz", "an encoder with --weights"

# what is mangled: (how, the command line, words of the sentence)
MANGLED = {
    # photos
    "a JPEG cut short": (cut_photo("jpeg", 0.5), CAPTION, *NO_PHOTO),
    "a PNG cut short": (cut_photo("png", 0.5), CAPTION, *NO_PHOTO),
    "a WebP cut short": (cut_photo("webp", 0.5), CAPTION, *NO_PHOTO),
    "a TIFF cut short": (cut_photo("tiff", 0.5), CAPTION, *NO_PHOTO),
    "a GIF cut short": (cut_photo("gif", 0.5), CAPTION, *NO_PHOTO),
    "a BMP cut short": (cut_photo("bmp", 0.5), CAPTION, *NO_PHOTO),
    "a JPEG cut in its header": (cut_photo("jpeg", 0.02), CAPTION, *NO_PHOTO),
    "a text for a photo": (content("x.jpg", "hello"), CAPTION, "cannot be read as a photo (it is not an image)"),
    "an empty photo": (content("x.jpg", ""), CAPTION, "cannot be read as a photo (it is empty)"),
    "a folder for a photo": (folder("x.jpg"), CAPTION, "x.jpg is a folder; give the photos in it"),
    "no photo": (nothing, CAPTION, "there is no photo ", "x.jpg; check the name"),
    "a photo with a line break in its name": (nothing, ["caption", "{w}/best.npz", "x\ny.jpg"], r"is no photo x\ny.jpg"),
    "a photo of 74 bytes and 100,000,000 rows": (png_of(1, 10**8), CAPTION, *FLAT),
    "a photo of 60,000,000 rows": (png_of(1, 6 * 10**7), CAPTION, *FLAT),
    "a photo of 60,000,000 columns": (png_of(6 * 10**7, 1), CAPTION, *FLAT),
    "a program for Ghostscript": (content("x.jpg", EPS), CAPTION, NO_PHOTO[0] + "it is EPS, which is not", NO_PHOTO[1]),
    "a photo of 400 megapixels": (png_of(20000, 20000), CAPTION, *HUGE),
    "a photo of 4 exapixels": (png_of(2**31 - 1, 2**31 - 1), CAPTION, *HUGE),
    "a photo as broad as it is flat": (png_of(2**31 - 1, 1), CAPTION, *HUGE),
    "a bad photo after a good one": (
        content("x.jpg", "hello"), "caption {w}/best.npz {w}/photo.jpg {t}/x.jpg --beam 1 --json {t}/out.json",
        "x.jpg cannot be read as a photo (it is not an image)",
    ),
    "a bad photo in the split": (
        flickr8k("Flicker8k_Dataset/test-00001.jpg", "hello"),
        "evaluate {w}/best.npz --data flickr8k --root {t}/data --split test --beam 1 --json {t}/out.json",
        "test-00001.jpg cannot be read as a photo (it is not an image)",
    ),
    "a bad photo in a training": (
        flickr8k("Flicker8k_Dataset/train-00003.jpg", ""), data("flickr8k"),
        "train-00003.jpg cannot be read as a photo (it is empty)",
    ),
    # captions
    "an empty captions file": (*form(write_tsv, TSV, b""), "captions.tsv has no captions: give a file"),
    "a captions file of dots": (*form(write_tsv, TSV, "0.jpg\t.\n"), "(the first is 0.jpg) have no captions"),
    "200 words": (*form(write_tsv, TSV, "00.jpg\t" + 200 * "dog "), "caption 1 of 00.jpg", "has 200 words"),
    "captions in Latin-1": (*form(write_tsv, TSV, b"00.jpg\tcaf\xe9"), "is not UTF-8 text (byte 10): save it"),
    "half of UTF-16": (*form(write_tsv, TSV, "00.jpg\ta".encode("utf-16")[:-1]), "is not UTF-16 text (byte 16)"),
    "a photo that is not there": (*form(write_tsv, "05.jpg", None), "(the first is 05.jpg) have no file"),
    "a TSV without a tab": (*form(write_tsv, TSV, ("01.jpg\t", "01.jpg ")), "line 6 of ", "it must be a photo's"),
    "a TSV of zeros": (*form(write_tsv, TSV, bytes(100)), "is not UTF-8 text (it has the character NUL)"),
    "a photo's name with a zero": (*form(write_tsv, TSV, ("01.jpg", "0\0.jpg")), "is not UTF-8 text (it has the char"),
    "a photo's name of 300 letters": (*form(write_tsv, TSV, ("01.jpg", 300 * "x")), f"{28 * 'x'}...{28 * 'x'}) have no"),
    "half of a JSON": (*form(write_names, JSON, '{"00.jpg": ["a'), "captions.json is not JSON ("),
    "a JSON of a number": (*form(write_names, JSON, "3"), "captions.json is JSON of another form"),
    "a JSON that is deep": (*form(write_names, JSON, 10**5 * "["), "captions.json is not JSON ("),
    "a JSON of half a letter": (*form(write_names, JSON, ('["', r'["\ud800')), "that is not text, at"),
    "a token file without #k": (*form(write_token, "results_20130124.token", ("00.jpg#0", "00.jpg")), "NAME.jpg#k"),
    "COCO without image ids": (*form(write_coco, VAL, ('"image_id"', '"photo"')), "an entry has no 'image_id'"),
    "COCO with a list for an id": (*form(write_coco, VAL, ('"image_id": 119', '"image_id": []')), "the wrong type"),
    "COCO without its images": (*form(write_coco, VAL, ('"images"', '"photos"')), "photo with the number 77"),
    "COCO of annotations that are none": (*form(write_coco, VAL, '{"images": [], "annotations": 3}'), "the wrong type"),
    "Karpathy without a split": (
        *form(write_karpathy, KARPATHY, ('"split"', '"part"')), "gives a split to some photos, but not to train2014/00.jpg",
    ),
    "Karpathy without file names": (*form(write_karpathy, KARPATHY, ('"filename"', '"f"')), "no 'filename'"),
    "Karpathy with a number for a name": (
        *form(write_karpathy, KARPATHY, ('"filename": "00.jpg"', '"filename": 7')), "an entry has the wrong type"
    ),
    "Karpathy with a number for a split": (
        *form(write_karpathy, KARPATHY, ('"split": "train"', '"split": 1')), "has train2014/05.jpg in the split 1: give"
    ),
    "Karpathy with a number for sentences": (
        *form(write_karpathy, KARPATHY, '{"images": [{"filename": "0.jpg", "split": "val", "sentences": 7}]}'),
        "that is not text, at '0.jpg'",
    ),
    "Karpathy with a number for a caption": (
        *form(write_karpathy, KARPATHY, '{"images": [{"filename": "0.jpg", "split": "val", "sentences": [{"raw": 1}]}]}'),
        "has a name or a caption that is not text, at '0.jpg': give strings",
    ),
    "a list with an unknown name": (*form(write_tsv_with_lists, LIST, "x.jpg"), "(the first is x.jpg) have no"),
    "a list with a name twice": (*form(write_tsv_with_lists, LIST, "22.jpg\n22.jpg"), "names a photo twice"),
    "an empty list": (*form(write_tsv_with_lists, LIST, "\n"), "val.txt is empty or names a photo twice"),
    "captions of Flickr8k cut short": (flickr8k(TEXT, "train-00000.jpg#0\ta dog"), data("flickr8k"), "7 of the 8 photos"),
    "no captions of Flickr8k": (flickr8k(TEXT, None), data("flickr8k"), "cannot read ", "Flickr8k.token.txt (No such file"),
    "a folder for captions": (nothing, TRAIN + " --captions {w}/data", "cannot read ", "data (Is a directory)"),
    "captions that are a photo": (nothing, TRAIN + " --captions {w}/photo.jpg", "photo.jpg is not UTF-8 text (byte 0)"),
    "a file for the data's folder": (nothing, TRAIN.replace("{w}/data", "{w}/photo.jpg"), "there is no folder "),
    "scenes with a folder": (nothing, "train --data scenes --root {w}/data --out {t}/new", "leave out --root and"),
    "scenes with captions": (
        nothing, "evaluate {w}/best.npz --data scenes --split val --captions {w}/x.tsv --json {t}/out.json",
        "--data scenes draws its photos and reads no files; leave out --root and --captions",
    ),
    # checkpoints
    "an empty checkpoint": (cut(0), CHECKPOINT, BROKEN),
    "a checkpoint of 10 bytes": (cut(10), CHECKPOINT, BROKEN),
    "a checkpoint of 5,000 bytes": (cut(5000), CHECKPOINT, BROKEN),
    "a checkpoint without its last byte": (cut(-1), CHECKPOINT, BROKEN),
    "a checkpoint without its directory": (cut(-2000), CHECKPOINT, BROKEN),
    "a text for a checkpoint": (content("c.npz", "hello"), CHECKPOINT, BROKEN + "it is not a zip file"),
    "a folder for a checkpoint": (folder("c.npz"), CHECKPOINT, "there is no checkpoint ", "give the best.npz or last.npz"),
    "a pickle for a checkpoint": (content("c.npz", pickle.dumps(print)), CHECKPOINT, BROKEN + "it is not a zip file"),
    "one array for a checkpoint": (content("c.npz", npy_header((2,)) + bytes(8)), CHECKPOINT, BROKEN),
    "a checkpoint with a pickle in it": (
        checkpoint(lambda arrays: {"params/decoder.b_o": np.array([{}], object)}), CHECKPOINT, BROKEN
    ),
    "a checkpoint with one wrong bit": (bracket, CHECKPOINT, BROKEN, "Bad CRC-32 for file"),
    "an encoder's .npz for a checkpoint": (encoder("npz"), CHECKPOINT, NO_CHECKPOINT.format(".npz"), GIVE),
    "an encoder's .pth for a checkpoint": (encoder("zip"), CHECKPOINT, NO_CHECKPOINT.format(".pth"), GIVE),
    "an encoder's old .pth for a checkpoint": (encoder("legacy"), CHECKPOINT, NO_CHECKPOINT.format(".pth"), GIVE),
    "an encoder's .safetensors for a checkpoint": (
        encoder("safetensors"), CHECKPOINT, NO_CHECKPOINT.format(".safetensors"), GIVE
    ),
    "an encoder to start from": (encoder("zip"), TRAIN + " --init {t}/c.npz", NO_CHECKPOINT.format(".pth"), GIVE),
    "a checkpoint without a header": (checkpoint(lambda arrays: {"header": None}), CHECKPOINT, BROKEN),
    "half a header": (checkpoint(lambda arrays: {"header": np.array(str(arrays["header"])[:99])}), CHECKPOINT, BROKEN),
    "a header that is a list": (checkpoint(lambda arrays: {"header": np.array("[1]")}), CHECKPOINT, BROKEN),
    "an array of another place": (checkpoint(lambda arrays: {"other/x": np.zeros(2)}), CHECKPOINT, BROKEN),
    "an array that says it has 4 TB": (claims((2**40,)), CHECKPOINT, BROKEN),
    "an array that says it has 2^80 elements": (claims((2**40, 2**40)), CHECKPOINT, BROKEN),
    "an array of less than nothing": (claims((-3,)), CHECKPOINT, BROKEN),
    "a checkpoint of packed zeros": (
        lambda t, w: np.savez_compressed(t / "c.npz", header=np.zeros(30_000_000, np.uint8)), CHECKPOINT, "declare 3000"
    ),
    "a checkpoint under a password": (patched(6, 1), CHECKPOINT, BROKEN),
    "a checkpoint packed in an unknown way": (patched(8, 77), CHECKPOINT, BROKEN),
    "a checkpoint packed as what it is not": (patched(8, 8), CHECKPOINT, BROKEN),
    "a checkpoint of another encoder": (
        header(lambda found: found["model"].update(encoder="vgg16")), CHECKPOINT, "c.npz ", "'vgg16'"
    ),
    "a checkpoint of another captioner": (
        header(lambda found: found["model"].update(captioner="x")), CHECKPOINT, "c.npz ", "'x'"
    ),
    "a checkpoint of other sizes": (
        header(lambda found: found["model"]["config"].update(H=9)), CHECKPOINT, "c.npz ", "its config needs"
    ),
    "a checkpoint with an unknown choice": (
        header(lambda found: found["model"]["config"].update(gate="door")), CHECKPOINT, "c.npz ", "door"
    ),
    "a checkpoint with fewer words": (words(lambda found: found[:-2]), CHECKPOINT, "c.npz ", "words"),
    "a checkpoint with a word twice": (words(lambda found: [*found[:-1], found[-2]]), CHECKPOINT, "c.npz ", "a word twice"),
    "a checkpoint without special words": (words(lambda found: found[::-1]), CHECKPOINT, "c.npz ", "must start with"),
    "a checkpoint without an array": (
        checkpoint(lambda arrays: {"params/decoder.b_o": None}), CHECKPOINT, "c.npz ", "decoder.b_o with shape None"
    ),
    "a checkpoint with a misshapen array": (
        checkpoint(lambda arrays: {"params/decoder.b_o": np.zeros(3, np.float32)}), CHECKPOINT, "decoder.b_o with shape (3,)"
    ),
    "a checkpoint with an array too many": (
        checkpoint(lambda arrays: {"params/decoder.x": np.zeros(3, np.float32)}), CHECKPOINT, "decoder.x with shape (3,)"
    ),
    "a checkpoint of nan": (
        checkpoint(lambda arrays: {"params/decoder.b_o": np.nan * arrays["params/decoder.b_o"]}), CHECKPOINT,
        "c.npz ", "decoder.b_o", "finite",
    ),
    "a checkpoint of words": (
        checkpoint(lambda arrays: {"params/decoder.b_o": arrays["params/decoder.b_o"].astype(str)}), CHECKPOINT, "c.npz "
    ),
    # weights
    "a weight missing": (
        *weights("w.npz", lambda x: x.pop("features.0.bias")),
        "w.npz does not have the weights of this encoder: features.0.bias is missing",
    ),
    "a weight misshapen": (
        *weights("w.safetensors", lambda x: x.update({"features.0.bias": np.zeros(3, np.float32)})),
        "features.0.bias has shape (3,), not (64,)",
    ),
    "all weights of other names": (
        *weights("w.pth", lambda x: [x.update({key + "x": x.pop(key)}) for key in list(x)]),
        "features.0.weight is missing; ", "more; give a file that has them",
    ),
    "a layer of zeros": (
        *weights("w.pth", lambda x: x["features.3.squeeze.weight"].fill(0)),
        "w.pth does not have the weights of this encoder: features.3.squeeze.weight has only zeros; give a file that has",
    ),
    "weights of zeros": (
        *weights("w.safetensors", lambda x: [y.fill(0) for y in x.values()]), "features.0.weight has only zeros;"
    ),
    "a checkpoint for weights": (
        lambda t, w: shutil.copy(w / "best.npz", t / "w.npz"), WEIGHTS + "w.npz",
        "w.npz is a checkpoint of satnp, not the weights of an encoder; give a .pth, .safetensors or .npz file of weights",
    ),
    "weights that are there twice": (
        *weights("w.npz", lambda x: [x.update({f"{p}.{key}": x[key] for p in "ab"}) or x.pop(key) for key in list(x)]),
        "w.npz has all weights of the encoder twice, behind 'a.features.' and 'b.features.'; save only those to use",
    ),
    "a weight that is nan": (
        *weights("w.npz", lambda x: x["features.0.bias"].fill(np.nan)), "features.0.bias", "finite"
    ),
    "weights that call os.system": (*pth(call("os.system", say("touch it-ran"))), "asks for 'os.system'"),
    "weights that call eval": (*pth(call("builtins.eval", say("exit(1)"))), "asks for 'builtins.eval'"),
    "weights of NumPy's": (content("w.pth", pickle.dumps(np.ones(3))), WEIGHTS + "w.pth", "_reconstruct"),
    "weights of a class": (*pth(name("subprocess.Popen") + say(("ls",)) + b"\x81"), "'subprocess.Popen'"),
    "weights of a huge shape": (*pth(tensor(ONE, 0, (2**40, 2**40), (2**40, 1))), "does not fit its storage"),
    "weights that overlap": (*pth(tensor(ONE, 0, (2**40,), (0,))), "tensor 'a' overlaps itself"),
    "weights without a storage": (*pth(tensor(say("0"), 0, (2,), (1,))), "tensor 'a' has no storage"),
    "weights of another model": (*pth(GOOD), "does not have the weights of this encoder: features.0.weight is missing"),
    "weights in a zip cut short": (*cut_weights("w.pth", "zip", 0.6), "is not a complete .pth file ("),
    "old weights cut short": (*cut_weights("w.pth", "legacy", 0.6), "is not a complete .pth file ("),
    "safetensors cut short": (*cut_weights("w.safetensors", None, 0.6), "does not fit its data_offsets"),
    "safetensors cut in their header": (*cut_weights("w.safetensors", None, 1e-4), "is not a complete"),
    "safetensors that point outside": (*safetensors(4, 12), "tensor a does not fit its data_offsets"),
    "safetensors that point before": (*safetensors(-8, 0), "tensor a does not fit its data_offsets"),
    "safetensors of a list": (content("w.safetensors", b"\2" + bytes(7) + b"[]"), WEIGHTS + "w.safetensors", "a complete"),
    "weights in a text": (content("w.npz", "hello"), WEIGHTS + "w.npz", "not a complete .npz file (it is not a zip file"),
    "weights in one array": (content("w.npz", npy_header((2,)) + bytes(8)), WEIGHTS + "w.npz", "not a complete .npz file ("),
    "weights of another kind": (content("w.onnx", "hello"), WEIGHTS + "w.onnx", "ends in '.onnx'; give a .pth"),
    "a folder for weights": (folder("w.pth"), WEIGHTS + "w.pth", "there is no weights file ", "w.pth; give a"),
    # configs
    "a config that is no TOML": (content("c.toml", "epochs 3"), CONFIG, "c.toml is not TOML (", "; fix that line"),
    "a config that is deep": (content("c.toml", "a = " + 10**4 * "["), CONFIG, "is not TOML (it is nested too deeply); fix"),
    "a config with a number of 5,000 digits": (content("c.toml", "a = " + 5000 * "9"), CONFIG, "c.toml is not TOML ("),
    "a config in Latin-1": (content("c.toml", b"# caf\xe9"), CONFIG, "c.toml is not TOML ("),
    "a config with an unknown key": (content("c.toml", "[recipe]\nepoch = 3"), CONFIG, "'epoch'", "did you mean 'epochs'?"),
    "a config with an unknown table": (content("c.toml", "[recipes]"), CONFIG, "'recipes'", "did you mean 'recipe'?"),
    "a config with a word for a number": (content("c.toml", "[config]\nH = 'ten'"), CONFIG, "give a whole number"),
    "a config out of range": (content("c.toml", "[config]\ndropout = 1.5"), CONFIG, "dropout is 1.5; choose a rate from 0"),
    "a config of less than nothing": (content("c.toml", "[recipe]\nclip = -1"), CONFIG, "clip is -1; choose"),
    "a config larger than memory": (content("c.toml", "[config]\nH = 1000000"), CONFIG, "not enough memory ("),
    "a config larger than any memory": (content("c.toml", f"[config]\nH = {10**15}"), CONFIG, "H is 1000000000000000"),
    "a config larger than any number": (content("c.toml", f"[config]\nH = {10**30}"), CONFIG, "H is 1000000000000000"),
    "a folder for a config": (folder("c.toml"), CONFIG, "cannot read the config ", "(Is a directory)"),
    # command lines
    "no epochs": (nothing, TRAIN + " --epochs 0", "epochs is 0; choose 1 or more"),
    "fewer epochs than none": (nothing, TRAIN + " --epochs -3", "epochs is -3; choose 1 or more"),
    "batches of nothing": (nothing, TRAIN + " --batch-size 0", "batch_size is 0; choose 1 or more"),
    "a rate that is nan": (nothing, TRAIN + " --learning-rate nan", "learning_rate is nan; choose a number above 0"),
    "a rate without end": (nothing, TRAIN + " --learning-rate inf", "learning_rate is inf; choose a number above 0"),
    "no weights": (
        nothing, WEIGHTS.partition("--weights")[0] + "--encoder vgg19", "has pretrained weights", "with --weights FILE"
    ),
    "weights for a small encoder": (nothing, TRAIN + " --weights {w}/w.npz", "is trained from scratch; leave out --weights"),
    "looking where there is nothing to choose": (
        nothing, BEST + " --decoding argmax", "has soft attention", "leave out --decoding"
    ),
    "a file for the folder to write": (content("new", "mine"), TRAIN, "File exists", "new"),
    "a file above the folder to write": (content("new", "mine"), TRAIN + "/er", "Not a directory", "new"),
    "a folder for the file to write": (
        folder("out.json"), BEST, "out.json is a folder; give the name of a file"
    ),
    "a file for the figures": (content("figures", "mine"), BEST, "File exists (", "figures); fix"),
    # trainings to go on with
    "a training in the way": (run(), RESUME.removesuffix("--resume"), "holds a training already; add --resume"),
    "resuming with another rate": (
        run(), RESUME + " --learning-rate 0.5",
        "run/last.npz began with other options: recipe.learning_rate 0.001, now 0.5; leave these as they were, or start "
        "from its best.npz with --init in a new --out",
    ),
    "resuming for more epochs": (run(), RESUME + " --epochs 9", "other options: recipe.epochs 2, now 9"),
    "resuming with other batches and another seed": (
        run(), RESUME + " --batch-size 4 --seed 3", "other options: recipe.seed 0, now 3; recipe.batch_size 8, now 4",
    ),
    "resuming another captioner": (
        run(), RESUME + " --captioner top_down", "other options: captioner show_attend_tell, now top_down",
    ),
    "resuming with hard attention": (
        run(), RESUME + " --attention hard", "other options: config.attention soft, now hard; ", "more; leave these",
    ),
    "resuming with other sizes": (
        lambda t, w: (run()(t, w), (t / "c.toml").write_text(TINY.replace("H = 8", "H = 9"))),
        RESUME.replace("{w}/tiny", "{t}/c"), "other options: config.H 8, now 9",
    ),
    "resuming with another recipe": (
        lambda t, w: (
            run()(t, w), (t / "c.toml").write_text(TINY + "samples = 3\ntemperature = 0.5\nbaseline = 'greedy'\n")
        ),
        RESUME.replace("{w}/tiny", "{t}/c"),
        "other options: recipe.temperature 1.0, now 0.5; recipe.samples 5, now 3; recipe.baseline leave_one_out, now greedy",
    ),
    "resuming with rarer words": (
        lambda t, w: (run()(t, w), (t / "c.toml").write_text(TINY.replace("min_count = 1", "min_count = 30"))),
        RESUME.replace("{w}/tiny", "{t}/c"), "other options: recipe.min_count 1, now 30",
    ),
    "resuming with other captions": (
        lambda t, w: (run()(t, w), flickr8k(TEXT, ("train-00000.jpg#0\ta", "train-00000.jpg#0\tthe"))(t, w)),
        RESUME.replace("{w}/data", "{t}/data"), "last.npz began with other options: captions ",
    ),
    "resuming with another word": (
        lambda t, w: (run()(t, w), flickr8k(TEXT, ("train-00000.jpg#0\ta", "train-00000.jpg#0\tzzz"))(t, w)),
        RESUME.replace("{w}/data", "{t}/data"), "last.npz began with other options: captions ",
    ),
    "resuming with fewer captions": (
        lambda t, w: (run()(t, w), flickr8k(TEXT, ("train-00000.jpg#4", "nobody.jpg#4"))(t, w)),
        RESUME.replace("{w}/data", "{t}/data"), "other options: number of captions 40, now 39",
    ),
    "resuming with fewer photos": (
        lambda t, w: (run()(t, w), flickr8k("Flickr8k_text/Flickr_8k.trainImages.txt", ("train-00001.jpg\n", ""))(t, w)),
        RESUME.replace("{w}/data", "{t}/data"), "other options: number of captions 40, now 35; number of photos 8, now 7",
    ),
    "resuming with other validation captions": (
        lambda t, w: (run()(t, w), flickr8k(TEXT, ("val-00000.jpg#0\ta", "val-00000.jpg#0\tthe"))(t, w)),
        RESUME.replace("{w}/data", "{t}/data"), "last.npz began with other options: validation captions ",
    ),
    "resuming with fewer validation photos": (
        lambda t, w: (run()(t, w), flickr8k("Flickr8k_text/Flickr_8k.devImages.txt", ("val-00001.jpg\n", ""))(t, w)),
        RESUME.replace("{w}/data", "{t}/data"),
        "other options: number of validation captions 15, now 10; number of validation photos 3, now 2",
    ),
    "resuming from another start": (
        run(), RESUME + " --init {w}/best.npz", "last.npz began with other options: init none, now ",
    ),
    "resuming with the settings of another version": (
        header(lambda found: found["training"]["recipe"].update(lookahead=3), **LAST), RESUME,
        "last.npz is from a version of satnp with other settings (lookahead); continue it with that version, or start from",
    ),
    "resuming half a checkpoint": (
        run(lambda t: (t / "run/last.npz").write_bytes((t / "run/last.npz").read_bytes()[:9999])), RESUME,
        "last.npz is not a complete checkpoint (",
    ),
    "resuming with a log of something else": (
        run(lambda t: (t / "run/metrics.jsonl").write_bytes(b'{"kind": "train", "step": 1}\n\xff [5]\n{}\n')), RESUME,
        "line 2 of ", "metrics.jsonl is not a record of a training; fix or remove that line",
    ),
    "resuming what has no training": (
        lambda t, w: (run()(t, w), shutil.copy(w / "best.npz", t / "run/last.npz")), RESUME,
        "last.npz has no training to resume; give the folder",
    ),
    "resuming without a generator": (
        header(lambda found: found["training"].pop("rng"), **LAST), RESUME,
        "last.npz does not have a complete training (",
    ),
    "resuming without moments": (
        checkpoint(lambda arrays: {"training/optimiser/mean": None}, **LAST), RESUME,
        "last.npz does not have a complete training (",
    ),
    "resuming from moments of another size": (
        checkpoint(lambda arrays: {"training/optimiser/mean": np.zeros(3)}, **LAST), RESUME,
        "last.npz does not have a complete training (",
    ),
    "starting from another vocabulary": (
        flickr8k(TEXT, ("train-00000.jpg#0\ta", "train-00000.jpg#0\taa")), data("flickr8k") + " --init {w}/best.npz",
        "best.npz has another vocabulary than this training; start from",
    ),
    "starting from another language": (
        lambda t, w: flickr8k(TEXT, re.sub(r"\b[a-z]+(?= )", r"\g<0>en", (w / "data" / TEXT).read_text()))(t, w),
        data("flickr8k") + " --init {w}/best.npz",
        "best.npz has another vocabulary than this training (100% of the words of these captions are not in it); start",
    ),
    "starting from other sizes": (
        content("c.toml", TINY.replace("H = 8", "H = 9")),
        TRAIN.replace("{w}/tiny", "{t}/c") + " --init {w}/best.npz", "best.npz has other sizes than this training",
    ),
    "starting from no checkpoint": (nothing, TRAIN + " --init {t}/none.npz", "there is no checkpoint ", "none.npz"),
    "starting from half a checkpoint": (cut(5000), TRAIN + " --init {t}/c.npz", BROKEN),
}  # fmt: skip


def snapshot(*folders):
    """Every file below with its bytes and when they were written, and every folder."""
    paths = [path for folder in folders for path in sorted(folder.rglob("*"))]
    return {path: None if path.is_dir() else (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


def command(what, t, w):
    line = MANGLED[what][1]
    return [part.format(t=t, w=w) for part in (line.split() if isinstance(line, str) else line)]


def assert_one_sentence(err, *words):
    *bars, sentence = err.replace("\r", "\n").splitlines()  # bars of what was under way before
    assert sentence.startswith("satnp: ") and all("photo/s]" in line or "?" in line for line in bars if line), err
    assert err.endswith("\n") and any(mark in sentence for mark in ";:,") and len(sentence) <= 300
    assert all(part in sentence for part in words), err


@pytest.mark.parametrize("what", MANGLED)
def test_what_is_mangled_gets_one_sentence_and_touches_nothing(world, tmp_path, capsys, what):
    make, _, *words = MANGLED[what]
    make(tmp_path, world)
    before = snapshot(tmp_path, world)
    assert main(command(what, tmp_path, world)) == 2
    assert_one_sentence(capsys.readouterr().err, *words)
    assert snapshot(tmp_path, world) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "what",
    [
        "a JPEG cut short", "weights that call os.system",
        *(pytest.param(what, marks=pytest.mark.slow) for what in ("half of a JSON", "no epochs")),
    ],
)  # fmt: skip
def test_the_real_command_says_the_same(world, tmp_path, what):
    make, _, *words = MANGLED[what]
    make(tmp_path, world)
    before = snapshot(tmp_path, world)
    child = subprocess.run([*SATNP, *command(what, tmp_path, world)], capture_output=True, text=True, cwd=REPOSITORY)
    assert (child.returncode, child.stdout, child.stderr.count("\n")) == (2, "", 1)
    assert_one_sentence(child.stderr, *words)
    assert snapshot(tmp_path, world) == before


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "satnp: error: the following arguments are required: COMMAND"),
        ("draw", "satnp: error: argument COMMAND: invalid choice: 'draw'"),
        ("train --out new", "satnp train: error: the following arguments are required: --data"),
        ("train --data mscoco --out new", "satnp train: error: argument --data: invalid choice: 'mscoco'"),
        ("train --data scenes --out new --epochs many", "satnp train: error: argument --epochs: invalid int value: 'many'"),
        ("train --data scenes --out new --beam 3", "error: unrecognized arguments: --beam 3"),
        ("evaluate c.npz --data scenes --split train", "satnp evaluate: error: argument --split: invalid choice: 'train'"),
        ("evaluate c.npz --data scenes --split val --beam 0", "argument --beam: '0' is not a whole number of 1 or more"),
        ("caption --beam 3", "satnp caption: error: the following arguments are required: PHOTO"),
        ("release c.npz", "satnp release: error: the following arguments are required: --out"),
        ("caption c.npz x.jpg --beam 2.5", "argument --beam: '2.5' is not a whole number of 1 or more"),
        ("caption c.npz x.jpg --seed -1", "argument --seed"),
        (f"caption c.npz x.jpg --beam {'9' * 400}x", "9x' is not a whole number of 1 or more"),
        ("demo --device tpu", "satnp demo: error: argument --device: invalid choice: 'tpu'"),
    ],
)
def test_a_command_that_is_none_shows_how_it_is_used(tmp_path, capsys, monkeypatch, line, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(line.split())
    assert stop.value.code == 2 and not list(tmp_path.iterdir())
    err = capsys.readouterr().err
    assert err.startswith("usage: satnp") and words in err.splitlines()[-1] and len(err.splitlines()[-1]) <= 300


@pytest.mark.slow
def test_a_header_with_any_value_of_another_type_is_refused(world, tmp_path):
    def places(value, path=()):
        if isinstance(value, dict):
            for key in value:
                yield from places(value[key], (*path, key))
        yield path

    arrays = arrays_of(world / "best.npz")
    header, seen = json.loads(str(arrays["header"])), 0
    for path in places(header["model"]):
        for value in (None, "x", -3, 2.5, True, [], {}, [3], 10**400, ...):
            changed = json.loads(json.dumps(header))
            *above, last = ("model", *path)
            place = changed
            for key in above:
                place = place[key]
            if value is ...:
                del place[last]
            elif json.dumps(value) != json.dumps(place[last]):
                place[last] = value
            np.savez(tmp_path / "c.npz", **arrays | {"header": np.array(json.dumps(changed))})
            try:
                load(tmp_path / "c.npz").caption(world / "photo.jpg", beam=1)
            except InputError as error:
                assert "\n" not in str(error), (path, value)
                seen += 1
            except Exception as error:
                pytest.fail(f"{path} = {value!r}: {error!r}")
    assert seen > 250


@pytest.mark.parametrize("file", ["best.npz", "run/last.npz"])
def test_a_checkpoint_with_a_wrong_bit_is_never_parsed(world, tmp_path, file):
    whole = (world / file).read_bytes()
    for start in [m.start() for m in re.finditer(b"\x93NUMPY", whole)][:2]:
        for place in range(start, start + 128):
            wrong = bytearray(whole)
            wrong[place] ^= 1 << place % 8 if wrong[place] != 32 else 8
            (tmp_path / "c.npz").write_bytes(wrong)
            with pytest.raises(InputError, match=r"c\.npz is not a complete checkpoint \(Bad CRC-32 for file .+; use"):
                load(tmp_path / "c.npz")


def test_a_checkpoint_with_a_wrong_byte_is_read_or_refused_in_one_sentence(world, tmp_path, rng):
    whole, refused = np.frombuffer((world / "best.npz").read_bytes(), np.uint8), 0
    directory = bytes(whole).index(b"PK\1\2")
    for _ in range(200):
        wrong = whole.copy()
        wrong[rng.integers(*((directory, len(whole)) if rng.random() < 0.7 else (0, 3000)))] = rng.integers(256)
        (tmp_path / "c.npz").write_bytes(wrong.tobytes())
        try:
            load(tmp_path / "c.npz")
        except InputError as error:
            refused += "\n" not in str(error)
    assert refused > 100


# A disk that is full, and a folder that may not be written to


def on_a_small_disk(code, folder, kilobytes):
    """What the Python `code` prints as JSON, run where `folder` is a disk of its own."""
    mount = f'mount -t tmpfs -o size={kilobytes}k none "$1" && shift && exec "$@"'
    refused = []
    for flags in ("-m", "-Urm"):
        if subprocess.run(["unshare", flags, "sh", "-c", mount, "sh", folder, "true"], capture_output=True).returncode == 0:
            child = subprocess.run(
                ["unshare", flags, "sh", "-c", mount, "sh", folder, sys.executable, "-c", code, folder],
                capture_output=True, text=True, cwd=REPOSITORY,
            )  # fmt: skip
            assert child.returncode == 0, child.stderr
            return json.loads(child.stdout.splitlines()[-1])
        refused.append(f"unshare {flags}")
    pytest.skip(f"no small disk can be mounted here: {' and '.join(refused)} were refused")


FULL = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from satnp import load
from satnp.checkpoint import load_training
from satnp.cli import main
from satnp.data import features
from satnp.training.trainer import Trainer
from tests.encoders.test_weights import torch_arrays, write_safetensors
from tests.small_world import use_tiny_encoders

if TINY:
    use_tiny_encoders(SimpleNamespace(setattr=setattr))
disk, w, features.CHUNK = Path(sys.argv[1]), Path(WORLD), 2
ballast, found = disk / "ballast", {}

def run(line):
    err = io.StringIO()
    with redirect_stderr(err), redirect_stdout(io.StringIO()):
        status = main(line.format(w=w, t=disk).split())
    return status, err.getvalue().splitlines()[-1]

def fill(left):
    ballast.write_bytes(b"")
    with open(ballast, "ab", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            file.truncate(max(0, file.tell() - left))

def files():
    passing = "ballast", "metrics.jsonl", "progress.html"
    kept = [path for path in disk.rglob("*") if path.is_file() and path.name not in passing]
    return {str(path): path.read_bytes() for path in kept}

# the checkpoint of a training that goes on
step = Trainer._train_step
def dying(trainer):
    if trainer.step == 4:
        raise KeyboardInterrupt
    return step(trainer)
Trainer._train_step = dying
assert run(RESUME)[0] == 130
Trainer._train_step = step
before = files()
fill(20_000)
found["checkpoint"] = *run(RESUME), files() == before, load_training(disk / "run/last.npz")[1]["header"]["step"]

# figures and JSON
for name in ("figures", "json"):
    fill(0)
    line = f"caption {w}/best.npz {w}/photo.jpg --beam 1 --{name} {disk}/" + ("new" if name == "figures" else "out.json")
    found[name] = *run(line), files() == before, 0
ballast.unlink()
assert run(RESUME)[0] == 0

# features
for path in (disk / "run").iterdir():
    path.unlink()
write_safetensors(w / "w.safetensors", torch_arrays()[1])
line = "train --data flickr8k --root {w}/data --config {w}/tiny.toml --weights {w}/w.safetensors --out {t}/frozen"
fill(ROOM)
status = run(line)
note, = (disk / "frozen/features").glob("*.json")
found["features"] = *status, not list(disk.rglob("*.npz")), json.loads(note.read_text())["done"]
print(json.dumps(found))
"""


@pytest.mark.slow
def test_a_full_disk_gets_one_sentence_and_the_last_whole_files_stay(world, encoders, tmp_path):
    tiny = encoders == "tiny"
    told = f"WORLD, RESUME, TINY, ROOM = {str(world)!r}, {RESUME!r}, {tiny}, {50_000 if tiny else 1_000_000}\n"
    found = on_a_small_disk(told + FULL, tmp_path, 16_000)
    *_, done = found["features"]
    assert 0 < done < 8 and done % 2 == 0
    store = re.search(r"\((.+/frozen/features/features-\w+-\w+\.npy)\)", found["features"][1])[1]
    full = "satnp: No space left on device ({}); fix that and run again"
    assert found == {
        "checkpoint": [2, full.format(tmp_path / "run/last.npz"), True, 3],
        "figures": [2, full.format(tmp_path / "new/photo.png"), True, 0],
        "json": [2, full.format(tmp_path / "out.json"), True, 0],
        "features": [2, full.format(store), True, done],
    }


@pytest.fixture
def shut(world):
    """A folder with a training that whoever runs the tests may read, and may not write to."""
    with tempfile.TemporaryDirectory() as name:  # unlike tmp_path it lies where others may look
        shut, user = Path(name), os.geteuid()
        shutil.copytree(world, shut, dirs_exist_ok=True)
        folders = [shut, *(path for path in shut.rglob("*") if path.is_dir())]
        for path in folders:
            path.chmod(0o555)
        if user == 0:  # root may write everywhere
            os.seteuid(65534)
        try:
            yield shut
        finally:
            os.seteuid(user)
            for path in folders:
                path.chmod(0o755)


@pytest.mark.parametrize(
    ("line", "file"),
    [
        (RESUME.replace("{t}", "{w}"), "run/.lock"),
        (TRAIN.replace("{t}", "{w}"), "new"),
        (TRAIN.replace("{t}/new", "{w}/run/new"), "run/new"),
        ("caption {w}/best.npz {w}/photo.jpg --beam 1 --json {w}/out.json", "out.json"),
        ("caption {w}/best.npz {w}/photo.jpg --beam 1 --figures {w}/data", "data/photo.png"),
        ("evaluate {w}/best.npz --data flickr8k --root {w}/data --split val --beam 1 --results {w}/out.json", "out.json"),
        ("gradcheck layers/affine --json {w}/out.json", "out.json"),
    ],
)
def test_a_folder_that_may_not_be_written_to_gets_one_sentence(world, tmp_path, shut, capsys, line, file):
    before = snapshot(shut)
    assert main(line.format(w=shut).split()) == 2
    err = capsys.readouterr().err.replace("\r", "\n").splitlines()[-1]
    assert err == f"satnp: Permission denied ({shut / file}); fix that and run again"
    assert snapshot(shut) == before
