"""Checkpoints: one .npz file without pickles, with arrays by name and everything else as JSON under `header`."""

import json
from pathlib import Path

import numpy as np

from satnp.arrays.parameters import Parameters
from satnp.encoders.weights import CHECKPOINT, form_of
from satnp.errors import InputError
from satnp.files import read_npz, refusing, replacing, there
from satnp.model import Model


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


def load(path):
    """Load the Model in checkpoint `path`, on the host; raises InputError if it is not a complete checkpoint of satnp."""
    return load_training(path)[0]


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
        groups = {"params": {}, "training": {}}
        for name, x in arrays.items():
            group, _, short = name.partition("/")
            groups[group][short] = x
        model_header, training, notes = dict(header["model"]), header["training"], dict(header["notes"])
        notes["recipe"] = dict(notes.get("recipe", {}))
        params = Parameters.of(groups["params"])
    for name, x in params.items():
        if x.dtype.kind != "f" or not np.isfinite(x).all():
            raise InputError(f"{path} has a value in {name} that is not a finite number; use another, or train again")
    try:
        model = Model.from_header(model_header, params)
    except InputError as refusal:
        raise InputError(f"{path} {refusal}; use another checkpoint, or train again") from None
    return model, training and {"header": training, "arrays": groups["training"]}, notes
