"""What differs between the options with which a training began and those with which it is resumed, in words."""

import hashlib
import json

from satnp.terminal import few

LETTERS = 24  # most characters of a value in a sentence

# Options that follow from another one: if that one differs, it is named first, and they are not named too. A name with a
# dot at its end stands for all names that begin so. Attention and the objective have presets, which may be replaced.
EFFECTS = {
    "config.attention": (),
    "recipe.objective": (),
    "captioner": ("config.",),
    "encoder": ("encoder_config.", "encoder weights", "finetune_from", "frozen", "config.D", "config.rows"),
    "encoder_config.": ("encoder weights", "config.D", "config.rows"),
    "init": ("encoder weights",),
    "finetune_from": ("encoder weights", "frozen"),
    "recipe.seed": ("data.", "vocabulary", "config.V", "length_score."),
    "recipe.min_count": ("data.captions", "vocabulary", "config.V"),
    "recipe.length_score": ("length_score.",),
    "recipe.length_power": ("length_score.",),
    "data.number of captions": ("data.captions",),
    "data.number of photos": ("data.photos",),
    "data.number of validation captions": ("data.validation captions",),
    "data.number of validation photos": ("data.validation photos",),
    "data.captions": ("vocabulary", "config.V", "length_score."),
}


def differences(began, now):
    """Name the options that differ, with both values: two dicts of JSON values, or of such dicts -> a string, "" if none do

    An option that follows from another (EFFECTS) is not named beside it, and those from which others follow come first.
    """
    began, now = flat(began), flat(now)
    differ = [name for name in began | now if json.dumps(began.get(name)) != json.dumps(now.get(name))]
    follow = [effect for cause, effects in EFFECTS.items() if any(_is(name, cause) for name in differ) for effect in effects]
    named = [name for name in differ if not any(_is(name, effect) for effect in follow)]
    named.sort(key=lambda name: name not in EFFECTS)
    said = [f"{name.removeprefix('data.')} {_short(began.get(name))}, now {_short(now.get(name))}" for name in named]
    return few(said) if said else ""


def flat(values, above=""):
    """{"recipe": {"seed": 0}} -> {"recipe.seed": 0}"""
    found = {}
    for name, x in values.items():
        found |= flat(x, f"{above}{name}.") if isinstance(x, dict) else {above + name: x}
    return found


def digest(x):
    """Hash of a JSON value."""
    return hashlib.sha256(json.dumps(x).encode()).hexdigest()[:16]


def _is(name, pattern):
    return name.startswith(pattern) if pattern.endswith(".") else name == pattern


def _short(x):
    text = "none" if x is None else x if isinstance(x, str) else json.dumps(x)
    return text if len(text) <= LETTERS else text[: LETTERS - 3] + "..."
