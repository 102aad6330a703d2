"""Checkpoints: one .npz file without pickles, with arrays by name and everything else as JSON under `header`.

A released captioner has matrices in int8 and one in float16. The weights of its encoder are not in the file if an installed
package has them.
"""

import json
from contextlib import contextmanager
from hashlib import sha256
from importlib import resources
from pathlib import Path

import numpy as np

from satnp.arrays.parameters import Parameters
from satnp.arrays.quantised import dequantise, quantise
from satnp.early import EARLY
from satnp.encoders import ENCODERS
from satnp.encoders.weights import CHECKPOINT, form_of
from satnp.errors import InputError
from satnp.files import read_npz, refusing, replacing, there
from satnp.model import Model

HALF = 65504.0  # the largest number of float16


def save(path, model, training=None, **notes):
    """Write a checkpoint of the model, with `notes` (JSON values) and, if given, the state of its training. Atomic.

    training is {"header": JSON values, "arrays": {name: host array}}.
    """
    training = training or {"header": None, "arrays": {}}
    header = {"satnp": 1, "model": model.header(), "training": training["header"], "notes": notes}
    arrays = {f"params/{name}": x for name, x in model.params.items()}
    arrays |= {f"training/{name}": x for name, x in training["arrays"].items()}
    with replacing(path) as temporary:
        np.savez(temporary, header=json.dumps(header), **arrays)


def release(path, model, **notes):
    """Write the captioner of `model`, on the host, as a small checkpoint with `notes`, which no training can resume. Atomic.
    Returns True if the encoder's weights are not in it, but in an installed package.

    The decoder's matrices are quantised, except for the last one, whose columns are words: it is float16, because the scores
    lose most where it is rounded. Vectors, matrices of one row or column, and early systems stay as they are. Of a frozen
    encoder whose weights are those of an installed package, only a hash is written: `load` reads the package. The weights of
    any other encoder are written as they are.
    Raises: InputError when that package is missing.
    """
    header = {"satnp": 1, "model": model.header(), "training": None, "notes": notes}
    encoder, weights = ENCODERS[model.encoder], model.params.part("encoder")
    arrays = {f"params/{name}": x for name, x in model.params.items()}
    if model.frozen and hasattr(encoder, "packaged_weights"):
        if _digest(encoder.load(None, model.encoder_config)) == _digest(weights):
            header["packaged encoder"] = _digest(weights)
            arrays = {f"params/decoder.{name}": x for name, x in model.params.part("decoder").items()}
    for name, x in () if model.captioner in EARLY else model.params.part("decoder").items():
        name = f"decoder.{name}"
        if x.shape[-1] == model.config.V and x.squeeze().ndim > 1 and np.abs(x).max() <= HALF:
            arrays[f"params/{name}"] = x.astype(np.float16)
        elif x.squeeze().ndim > 1:
            arrays[f"params/{name}"], arrays[f"scales/{name}"] = quantise(x)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, header=json.dumps(header), **arrays)
    return "packaged encoder" in header


def released():
    """The path of the captioner that comes with satnp; raises InputError where there is none."""
    path = Path(str(resources.files("satnp") / "released" / "flickr8k.npz"))
    if not there(path):
        raise InputError("this satnp comes without a captioner; give the best.npz or last.npz that a training wrote")
    return path


def load(path=None):
    """Load the Model in checkpoint `path` (None: the one that comes with satnp), on the host.

    Raises: InputError if it is not a complete checkpoint of satnp, or if the package with the encoder's weights is missing.
    """
    return load_training(released() if path is None else path)[0]


def load_training(path):
    """Load checkpoint `path` -> (Model, training as given to `save` or None, notes)"""
    path = Path(path)
    if not there(path):
        raise InputError(f"there is no checkpoint {path}; give the best.npz or last.npz that a training wrote")
    form = form_of(path)
    if form not in (None, CHECKPOINT):
        raise InputError(
            f"{path} is not a checkpoint of satnp, but a {form} file; give the best.npz or last.npz that a training "
            "wrote, and give weights of an encoder with --weights"
        )
    with refusing(f"{path} is not a complete checkpoint", "use another, or train again"):
        arrays = read_npz(path)
        if "header" not in arrays:
            raise ValueError("it has no header")
        header = json.loads(str(arrays.pop("header")))
        groups = {"params": {}, "scales": {}, "training": {}}
        for name, x in arrays.items():
            group, _, short = name.partition("/")
            groups[group][short] = x
        model_header, training, notes = dict(header["model"]), header["training"], dict(header["notes"])
        notes["recipe"] = dict(notes.get("recipe", {}))
        for name, scale in groups["scales"].items():
            groups["params"][name] = dequantise(groups["params"][name], scale)
        params = groups["params"]
        params |= {name: x.astype(np.float32) for name, x in params.items() if x.dtype == np.float16}
    for name, x in groups["params"].items():
        if x.dtype.kind != "f" or not np.isfinite(x).all():
            raise InputError(f"{path} has a value in {name} that is not a finite number; use another, or train again")
    with _about(path):
        model = Model.from_header(model_header)
    if "packaged encoder" in header:
        groups["params"] |= _packaged(path, model, header["packaged encoder"])
    with _about(path):
        model = model.with_params(Parameters.of(groups["params"]))
    return model, training and {"header": training, "arrays": groups["training"]}, notes


@contextmanager
def _about(path):
    """Context manager: an InputError begins with the path of the checkpoint and ends with what to do."""
    try:
        yield
    except InputError as refusal:
        raise InputError(f"{path} {refusal}; use another checkpoint, or train again") from None


def _packaged(path, model, digest):
    """The weights of the model's encoder in its installed package: {"encoder.NAME": array}

    Raises: InputError where there are none, or others than those of the hash `digest`.
    """
    encoder = ENCODERS[model.encoder]
    if not hasattr(encoder, "packaged_weights"):
        raise InputError(f"{path} lacks the weights of its encoder, {model.encoder}; use another checkpoint, or train again")
    params = encoder.load(None, model.encoder_config)
    if _digest(params) != digest:
        raise InputError(
            f"{path} was trained with other weights of the encoder {model.encoder} than the installed package has; "
            f"{encoder.REINSTALL}, or use another checkpoint"
        )
    return {f"encoder.{name}": x for name, x in params.items()}


def _digest(params):
    """Hash of the numbers."""
    return sha256(params.flat.tobytes()).hexdigest()[:16]
