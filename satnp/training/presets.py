"""What a training is made of where nothing else is said: one preset a kind of data, and a TOML file over it."""

import difflib
import sys
import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from satnp.arrays.parameters import Parameters
from satnp.captioners import CAPTIONERS
from satnp.data.captions import Vocabulary
from satnp.encoders import ENCODERS
from satnp.errors import InputError
from satnp.model import Model
from satnp.training.trainer import Recipe


@dataclass(frozen=True)
class Preset:
    """Names of encoder and captioner, the captioner's choices that differ from its Config, and the recipe."""

    encoder: str
    captioner: str
    config: dict
    recipe: Recipe


# Scenes have about ten words to say of two spots: a full penalty would forbid to look at a spot twice.
# Flickr8k differs from the paper's recipe: SqueezeNet for VGG-19, H and A half as large, and Adam with a falling rate and
# averaged parameters for RMSProp. Mirrored photos double the 6,000.
PRESETS = {
    "scenes": Preset(
        "small", "show_attend_tell",
        {"M": 64, "H": 128, "A": 64, "penalty": 0.0, "dropout": 0.0},
        Recipe(epochs=3, batch_size=32, learning_rate=2e-3, warmup=100, clip=1.0, averaging=0.99, min_count=1),
    ),
    "flickr8k": Preset(
        "squeezenet1_1", "show_attend_tell",
        {"M": 512, "H": 512, "A": 256},
        Recipe(epochs=15, learning_rate=1e-3, averaging=0.9995, mirror=True, patience=4, length_power=0.7),
    ),
}  # fmt: skip
PRESETS |= {kind: PRESETS["flickr8k"] for kind in ("flickr30k", "coco", "karpathy")}
# A folder may hold a hundred photos: smaller batches, or there would be too few steps; patience ends it for more.
PRESETS["folder"] = replace(
    PRESETS["flickr8k"],
    recipe=replace(
        PRESETS["flickr8k"].recipe, epochs=40, batch_size=16, warmup=50, averaging=0.99, patience=8, min_count=1,
    ),
)  # fmt: skip

# What hard attention does differently. A word is paid for the words from it on, and by less than the bound's own weight:
# with all of it the noise of the first rewards closes the gate beta before there is anything to see. On Flickr8k the mean
# over words does the same, and so do fewer drawn locations: a fair coin closes the gate there. The penalty works against
# looking at one place at a time.
HARD = {
    "scenes": (
        {"estimator": "reward_to_go", "reward_weight": 0.05, "entropy_weight": 0.0, "decoding": "argmax"}, {"epochs": 6},
    ),
    "flickr8k": (
        {"estimator": "reward_to_go", "reward": "mean", "entropy_weight": 0.002, "penalty": 0.0, "coin_chance": 0.9}, {},
    ),
}  # fmt: skip
HARD |= {kind: HARD["flickr8k"] for kind in PRESETS if kind not in HARD}


def find_preset(kind, attention=None, path=None):
    """The Preset for data of `kind` with soft or hard attention (default: soft), and what the TOML file at `path` says
    instead: top-level `encoder`, tables [config] and [recipe]."""
    preset = PRESETS[kind]
    said = {} if path is None else _read(path, preset)
    config, recipe = said.get("config", {}), said.get("recipe", {})
    if attention is not None:
        config = config | {"attention": attention}
    more_config, more_recipe = HARD[kind] if config.get("attention") == "hard" else ({}, {})
    return replace(
        preset,
        encoder=said.get("encoder", preset.encoder),
        config=preset.config | more_config | config,
        recipe=replace(preset.recipe, **more_recipe | recipe),
    )


def _read(path, preset):
    """The tables of the TOML file, each key known and each value of its type."""
    try:
        said = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the config {path} ({error.strerror}); give a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML ({error}); mend that line") from None
    captioner = CAPTIONERS[preset.captioner].Config
    tables = {  # V and D follow from the data and the encoder
        "config": {f.name: f.type for f in fields(captioner) if f.name not in ("V", "D")},
        "recipe": {f.name: f.type for f in fields(Recipe)},
    }
    for table, types in tables.items():
        for name in said.keys() & types.keys():
            raise InputError(f"{path} has the key {name!r} outside of its table; put it below a line [{table}]")
    _check(said, {"encoder": str, "config": dict, "recipe": dict}, path)
    for table, types in tables.items():
        _check(said.get(table, {}), types, path)
    return said


def _check(said, types, path):
    """Each key of the table `said` exists, and its value has the type that `types` {key: type} asks for."""
    for name, value in said.items():
        if name not in types:
            near = difflib.get_close_matches(name, types, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(types)}"
            raise InputError(f"{path} has the key {name!r}, which does not exist; {hint}")
        wanted = (int, float) if types[name] is float else types[name]
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            raise InputError(f"{path} says {name} = {value!r}; give a value of type {types[name].__name__}")
        if wanted == (int, float) and abs(value) > sys.float_info.max:
            raise InputError(f"{path} says {name} = {str(value)[:9]}...; give a number below {sys.float_info.max:.1e}")


def new_model(preset, train, weights=None, preprocessing=None, finetune_from=None):
    """An untrained Model for the captions of the split `train`.

    A pretrained encoder comes from the file `weights`, which was trained with the `preprocessing` of that name (None: the
    first that the encoder has); it is frozen, but for the layers from `finetune_from` on.
    """
    if preset.encoder not in ENCODERS:
        raise InputError(f"there is no encoder {preset.encoder!r}; choose one of {', '.join(ENCODERS)}")
    recipe = preset.recipe
    rng = np.random.default_rng([recipe.seed, 0])
    words = [caption for captions in train.captions for caption in captions]
    vocabulary = Vocabulary.build(words, recipe.min_count)
    encoder, captioner = ENCODERS[preset.encoder], CAPTIONERS[preset.captioner]
    encoder_config, pretrained = encoder.Config(), hasattr(encoder, "load")
    if pretrained and weights is None:
        raise InputError(f"the encoder {preset.encoder} has pretrained weights; give their file with --weights FILE")
    if not pretrained and (weights or preprocessing or finetune_from):
        raise InputError(
            f"the encoder {preset.encoder} is trained from scratch; leave out --weights, --preprocessing and --finetune-from"
        )
    if finetune_from is not None and finetune_from not in encoder.LAYERS:
        layers = ", ".join(encoder.LAYERS)
        raise InputError(f"the encoder {preset.encoder} has no layer {finetune_from!r}; choose one of {layers}")
    if preprocessing is not None:
        encoder_config = encoder.Config(encoder.PREPROCESSING[preprocessing])
    encoder_params = encoder.load(weights, encoder_config) if pretrained else encoder.init(encoder_config, rng)
    config: Any = captioner.Config(V=len(vocabulary), D=encoder_config.D, **preset.config)
    params = Parameters.join(encoder=encoder_params, decoder=captioner.init(config, rng))
    return Model(
        preset.encoder, encoder_config, preset.captioner, config, vocabulary, params,
        frozen=pretrained and finetune_from is None, length_power=recipe.length_power,
        finetune_from=None if pretrained and finetune_from == encoder.LAYERS[0] else finetune_from,
    )  # fmt: skip
