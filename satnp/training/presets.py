"""The default settings of a training: one preset per kind of data, and a TOML file that replaces values of it."""

import difflib
import sys
import tomllib
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from satnp.arrays.parameters import Parameters
from satnp.captioners import CAPTIONERS
from satnp.captioners.neural_baby_talk import visual_words
from satnp.data.captions import Vocabulary
from satnp.decoding import LengthScore
from satnp.early import EARLY
from satnp.encoders import ENCODERS, reads_clips
from satnp.errors import InputError
from satnp.files import refusing
from satnp.model import Model, captioner_of
from satnp.training.trainer import Recipe


@dataclass(frozen=True)
class Preset:
    """Names of encoder and captioner, the values that differ from the captioner's default Config, and the recipe."""

    encoder: str
    captioner: str
    config: dict
    recipe: Recipe
    encoder_config: dict = field(default_factory=dict)  # values that differ from the encoder's default Config


# A scene's caption has about ten words about two objects: a full penalty would forbid to look at an object twice.
# Flickr8k differs from the paper's recipe: a smaller encoder than VGG-19, H and A half as large, and Adam with a falling
# learning rate and averaged parameters instead of RMSProp. Mirroring doubles the 6,000 photos.
PRESETS = {
    "scenes": Preset(
        "small", "show_attend_tell",
        {"M": 64, "H": 128, "A": 64, "penalty": 0.0, "dropout": 0.0},
        Recipe(epochs=3, batch_size=32, learning_rate=2e-3, warmup=100, clip=1.0, averaging=0.99, min_count=1),
    ),
    "flickr8k": Preset(
        "efficientnet_lite0", "show_attend_tell",
        {"M": 512, "H": 512, "A": 256},
        Recipe(epochs=15, learning_rate=1e-3, averaging=0.9995, mirror=True, patience=4, length_power=0.7),
    ),
}  # fmt: skip
PRESETS["moving_scenes"] = Preset(
    "small_frames", "show_attend_tell",
    {"M": 64, "H": 128, "A": 64, "penalty": 0.0, "dropout": 0.2},
    Recipe(epochs=5, batch_size=64, learning_rate=2e-3, warmup=100, clip=1.0, averaging=0.99, min_count=1),
)  # fmt: skip
PRESETS |= {kind: PRESETS["flickr8k"] for kind in ("flickr30k", "coco", "karpathy")}
# A folder may have only a hundred photos: small minibatches give enough steps. With more photos, patience ends a training.
PRESETS["folder"] = replace(
    PRESETS["flickr8k"],
    recipe=replace(
        PRESETS["flickr8k"].recipe, epochs=40, batch_size=16, warmup=50, averaging=0.99, patience=8, min_count=1,
    ),
)  # fmt: skip

# The values for hard attention. The reward of a location is log p of the words from its own on, with a smaller weight than
# in the bound: with the full weight, the noise of the first rewards closes the gate beta before the model has learnt to use
# the photo. On Flickr8k the mean over words also reduces the reward, and fewer locations are drawn, because a fair coin
# closes the gate there. The penalty is 0, because it works against looking at one location at a time.
HARD = {
    "scenes": (
        {"estimator": "reward_to_go", "reward_weight": 0.05, "entropy_weight": 0.0, "decoding": "argmax"}, {"epochs": 6},
    ),
    "flickr8k": (
        {"estimator": "reward_to_go", "reward": "mean", "entropy_weight": 0.002, "penalty": 0.0, "coin_chance": 0.9}, {},
    ),
}  # fmt: skip
HARD["moving_scenes"] = HARD["scenes"]
HARD |= {kind: HARD["flickr8k"] for kind in PRESETS if kind not in HARD}

# Self-critical training starts from a trained captioner, so its steps are small; an epoch uses each photo once. The
# temperature and the rate were found by trials (tests/benchmarks/results/flickr8k_scst.md).
SCST = {
    "epochs": 3, "batch_size": 50, "learning_rate": 1e-4, "warmup": 20, "clip": 1.0, "averaging": 0.99, "temperature": 0.5,
    "select": "CIDEr",
}  # fmt: skip

# What other captioners do differently on scenes: (config, recipe). With 128 units the second LSTM of Top-Down remembers an
# object for several words, and attention is a word ahead; with 24 it attends to the object when it says the noun. Show and
# Tell has one vector for the whole photo: it needs more units and epochs, and learns its training scenes by heart. The
# captions of scenes have 13 words that are attributes. The detectors of scenes have to learn relations, too.
SCENES = {
    "show_and_tell": ({"M": 256, "H": 256, "dropout": 0.3}, {"epochs": 8, "averaging": 0.999}),
    "top_down": ({"H": 24}, {}),
    "att_lstm": ({"K": 13}, {}),
    "fang": ({"hidden": True, "H": 256, "detecting": 20, "likely": 7.0}, {}),
    "trim": ({"hidden": True, "H": 256, "detecting": 20}, {}),
    "ranking": ({"M": 64, "K": 128, "epochs": 7, "again": 1}, {}),
}  # fmt: skip

# The same on photos. SCA-CNN computes the keys of all locations at each word; a smaller A makes its steps shorter. Word
# detectors of the mean annotation are better than those of the locations (tests/benchmarks/results/early.md).
PHOTOS = {"sca_cnn": ({"A": 128}, {}), "fang": ({"whole": True}, {}), "trim": ({"whole": True}, {})}

# The tables for rendered data; PHOTOS is for other data.
OTHERS = {"scenes": SCENES, "moving_scenes": {"s2vt": ({}, {"epochs": 10})}}

WITH_WEIGHTS = "squeezenet1_1"  # the encoder of photos if a file with weights is given, but no encoder is named

OF_EARLY = {"min_count", "seed", "mirror"}  # values of a recipe that early systems use

FROZEN = "give a checkpoint that has it with --init, or a pretrained one, without --finetune-from"

# fields of a captioner's Config that follow from the data, the encoder, the regions and the guidance
GIVEN = "V", "D", "rows", "G", "classes", "words"


def find_preset(kind, captioner=None, attention=None, path=None, own_recipe=True, encoder=None, weights=None):
    """The Preset for data of `kind`, a captioner and its attention, soft or hard (defaults: show_attend_tell, soft), and an
    encoder (default: that of the data, or WITH_WEIGHTS if the file `weights` is given).

    Without `own_recipe`, the recipe is that of the data, the same for all captioners.
    The TOML file at `path` replaces values of the preset: top-level `encoder` and `captioner`, tables [config], [recipe] and
    [encoder_config].
    Raises InputError for a captioner, an encoder or a key that does not exist, or a value of the wrong type.
    """
    said = {} if path is None else _read(path)
    preset, captioner = PRESETS[kind], captioner or said.get("captioner", PRESETS[kind].captioner)
    if not isinstance(captioner, str) or captioner not in CAPTIONERS | EARLY:
        raise InputError(f"there is no captioner {captioner!r}; choose one of {', '.join(CAPTIONERS | EARLY)}")
    default = WITH_WEIGHTS if weights and kind not in OTHERS else preset.encoder
    encoder = encoder or said.get("encoder", default)
    if not isinstance(encoder, str) or encoder not in ENCODERS:
        raise InputError(f"there is no encoder {encoder!r}; choose one of {', '.join(ENCODERS)}")
    if (kind == "moving_scenes") != reads_clips(encoder):
        what = "clips" if kind == "moving_scenes" else "photos"
        raise InputError(f"{kind} are {what}, which the encoder {encoder} does not read; choose another, or leave it out")
    if kind == "moving_scenes" and not describes_clips(captioner):
        raise InputError(f"{captioner} finds objects in photos, and {kind} are clips; choose another captioner")
    _check_tables(said, captioner, encoder, path)
    if own_recipe and captioner in EARLY and (others := said.get("recipe", {}).keys() - OF_EARLY):
        raise InputError(f"{captioner} has no recipe for {sorted(others)[0]}; what it learns with is under [config]")
    config, recipe = said.get("config", {}), said.get("recipe", {})
    known = {f.name for f in fields(captioner_of(captioner).Config)}
    if attention is not None:
        if "attention" not in known:
            raise InputError(f"--attention chooses soft or hard for show_attend_tell; leave it out for {captioner}")
        config = config | {"attention": attention}
    more_config, more_recipe = OTHERS.get(kind, PHOTOS).get(captioner, ({}, {}))
    if config.get("attention") == "hard":
        more_config, more_recipe = HARD[kind]
    if recipe.get("objective") == "scst":
        more_recipe = more_recipe | SCST
    if not own_recipe:
        more_recipe = {}
    if captioner in EARLY and not hasattr(EARLY[captioner], "SAYS_WORDS"):
        more_recipe = more_recipe | {"min_count": 1}  # a sentence that is taken whole keeps all of its words
    return replace(
        preset,
        encoder=encoder,
        captioner=captioner,
        config={name: x for name, x in preset.config.items() if name in known} | more_config | config,
        recipe=replace(preset.recipe, **more_recipe | recipe),
        encoder_config=said.get("encoder_config", {}),
    )


def describes_clips(captioner):
    """Return whether a captioner also describes clips: it does not look for boxes in a photo."""
    of = captioner_of(captioner)
    return not hasattr(of, "found_in") and not getattr(of.Config, "regions", False)


def with_files(preset, regions=False, guidance=False):
    """The Preset of a training that reads regions or guidance from a file. Regions take the place of the encoder, and their
    photos are not mirrored."""
    for flag, option in ((regions, "regions"), (guidance, "guidance")):
        if flag and not hasattr(captioner_of(preset.captioner).Config, option):
            owners = [name for name, captioner in CAPTIONERS.items() if hasattr(captioner.Config, option)]
            raise InputError(
                f"--{option} is for {' and '.join(owners)}; leave it out for {preset.captioner}, "
                f"or add --captioner {owners[0]}"
            )
    if regions:
        if preset.encoder_config:
            raise InputError("--regions takes the place of an encoder; leave out [encoder_config]")
        recipe = replace(preset.recipe, mirror=False)
        return replace(preset, encoder="regions", config=preset.config | {"regions": True}, recipe=recipe)
    return replace(preset, config=preset.config | {"guidance": "file"}) if guidance else preset


def _read(path):
    """Read the TOML file at `path`."""
    with refusing(f"{path} is not TOML", "fix that line"):
        try:
            return tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"cannot read the config {path} ({error.strerror}); give a TOML file") from None


def _check_tables(said, captioner, encoder, path):
    """Raise InputError for a key of the TOML file that does not exist, or a value of the wrong type."""
    of_encoder = {f.name: f.type for f in fields(ENCODERS[encoder].Config)}
    reads_photos = of_encoder.pop("preprocessing", None) is not None
    of_captioner = captioner_of(captioner)
    given = *GIVEN, *getattr(of_captioner, "SIZES", ())
    tables = {
        "config": {f.name: f.type for f in fields(of_captioner.Config) if f.name not in given},
        "recipe": {f.name: f.type for f in fields(Recipe)},
        "encoder_config": {"size": int} | {name: x for name, x in of_encoder.items() if x in TYPES} if reads_photos else {},
    }
    for table, types in tables.items():
        for name in said.keys() & types.keys():
            raise InputError(f"{path} has the key {name!r} outside of its table; put it below a line [{table}]")
    _check(said, {"encoder": str, "captioner": str} | dict.fromkeys(tables, dict), path)
    owners = {"config": f" of {captioner}", "encoder_config": f" of {encoder}"}
    for table, types in tables.items():
        _check(said.get(table, {}), types, path, f" in [{table}]{owners.get(table, '')}")


TYPES = {
    str: "a text in quotes", int: "a whole number", float: "a number", bool: "true or false", dict: "a table",
}  # fmt: skip


def _check(said, types, path, where=""):
    """Raise InputError unless each key of the table `said` is in `types` {key: type} and its value has this type."""
    for name, value in said.items():
        if name not in types:
            near = difflib.get_close_matches(name, types, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(types)}" if types else "leave it out"
            raise InputError(f"{path} has the key {name!r}, which does not exist{where}; {hint}")
        wanted = (int, float) if types[name] is float else types[name]
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            raise InputError(f"{path} says {name} = {value!r}; give {TYPES[types[name]]}")
        if wanted == (int, float) and abs(value) > sys.float_info.max:
            raise InputError(f"{path} says {name} = {str(value)[:9]}...; give a number below {sys.float_info.max:.1e}")


def new_model(
    preset, train, weights=None, preprocessing=None, finetune_from=None, regions=None, guidance=None, encoder=None,
    classes=None,
):  # fmt: skip
    """Make an untrained Model for the captions of the split `train`. regions (k, D) and guidance G are the sizes in the
    files that the captioner reads, if any, and classes are those of the regions. encoder: a Model, whose encoder it takes,
    frozen.

    Without `encoder`, a pretrained encoder is read from the file `weights` (None: from its installed package, if it has
    one), which was trained with the `preprocessing` of that name (None: the first of the encoder). It is frozen, except for
    the layers from `finetune_from` on (None: the encoder's NEW_LAYER, if it has one).
    """
    reads_regions = getattr(captioner_of(preset.captioner).Config, "regions", False)
    if regions is None and (preset.encoder == "regions" or preset.config.get("regions", reads_regions)):
        raise InputError("the captioner reads regions from a file; give it with --regions FILE.npz")
    if guidance is None and preset.config.get("guidance") == "file":
        raise InputError("the captioner reads guidance from a file; give it with --guidance FILE.npz")
    recipe, captioner = preset.recipe, captioner_of(preset.captioner)
    rng = np.random.default_rng([recipe.seed, 0])
    words = [caption for captions in train.captions for caption in captions]
    vocabulary = Vocabulary.build(words, recipe.min_count)
    lengths = [len(caption) + 1 for caption in words]  # with <end>
    length_score = LengthScore(
        recipe.length_score, recipe.length_power, float(np.mean(lengths)), float(np.std(lengths))
    )  # fmt: skip
    if encoder is None:
        name = preset.encoder
        encoder_config, encoder_params, frozen, finetune_from = _new_encoder(
            name, preset.encoder_config, rng, weights, preprocessing, finetune_from, regions
        )
    else:
        if preset.encoder_config:
            raise InputError("--init gives the encoder and its config; leave out [encoder_config]")
        name, encoder_config, encoder_params = encoder.encoder, encoder.encoder_config, encoder.params.part("encoder")
        frozen = True
        wanted = ENCODERS[preset.encoder]
        if getattr(wanted, "BASE", None) == name:  # an encoder of photos, for the frames of clips
            name, encoder_config = preset.encoder, wanted.of_photos(encoder_config)
        clips = reads_clips(preset.encoder)
        if clips != reads_clips(name):
            what = f"clips; give a checkpoint with {wanted.BASE}" if clips else "photos; give a checkpoint of these"
            raise InputError(f"--init has the encoder {name}, and the data are {what}")
    if guidance is not None and not frozen:
        raise InputError(
            "guidance from a file needs an encoder that is not trained; give a pretrained one, such as "
            "--encoder efficientnet_lite0, without --finetune-from"
        )
    given = {"V": len(vocabulary), "D": encoder_config.D, "rows": encoder_config.grid[0], "G": guidance}
    given |= {"classes": classes, "words": None if classes is None else visual_words(classes, vocabulary.words)}
    known = {f.name for f in fields(captioner.Config)}
    given = {name: x for name, x in given.items() if name in known and x is not None}
    config: Any = captioner.Config(**given, **preset.config)
    if preset.captioner in EARLY:
        if not frozen or finetune_from:
            raise InputError(f"{preset.captioner} does not train the encoder {name}; {FROZEN}")
        decoder = Parameters(captioner.shapes(config))  # fit() replaces it
    else:
        decoder = captioner.init(config, rng)
    params = Parameters.join(encoder=encoder_params, decoder=decoder)
    return Model(
        name, encoder_config, preset.captioner, config, vocabulary, params,
        frozen=frozen, length_score=length_score, finetune_from=finetune_from,
    )  # fmt: skip


def _new_encoder(name, said, rng, weights, preprocessing, finetune_from, regions):
    """An encoder as new_model describes -> its config, Parameters, whether it is frozen, Model.finetune_from"""
    encoder = ENCODERS[name]
    config, pretrained = encoder.Config(*regions or ()), hasattr(encoder, "load")
    if pretrained and weights is None and not hasattr(encoder, "packaged_weights"):
        raise InputError(f"the encoder {name} has pretrained weights; give their file with --weights FILE")
    if not pretrained and (weights or preprocessing or finetune_from):
        why = f"the encoder {name} is trained from scratch" if regions is None else "regions have no encoder"
        raise InputError(f"{why}; leave out --weights, --preprocessing and --finetune-from")
    if preprocessing is not None:
        if preprocessing not in encoder.PREPROCESSING:
            known = ", ".join(encoder.PREPROCESSING)
            raise InputError(f"the encoder {name} has no weights with the preprocessing {preprocessing!r}; it has {known}")
        config = encoder.Config(encoder.PREPROCESSING[preprocessing])
    changes = {field: type(getattr(config, field))(x) for field, x in said.items() if field != "size"}  # 1 may be 1.0
    if "size" in said:
        changes["preprocessing"] = replace(config.preprocessing, size=said["size"])
    config = replace(config, **changes)
    if min(config.grid) < 1:
        raise InputError(f"size is {config.preprocessing.size}, too small for the encoder {name}; choose more pixels")
    layers = encoder.layers(config) if pretrained else ()
    finetune_from = finetune_from or getattr(encoder, "NEW_LAYER", None)
    if finetune_from is not None and finetune_from not in layers:
        raise InputError(f"the encoder {name} has no layer {finetune_from!r}; choose one of {', '.join(layers)}")
    params = encoder.load(weights, config) if pretrained else encoder.init(config, rng)
    frozen = regions is not None or pretrained and finetune_from is None
    return config, params, frozen, None if pretrained and finetune_from == layers[0] else finetune_from
