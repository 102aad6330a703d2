"""A Flickr8k folder of rendered scenes and encoders for it, small enough to train in seconds."""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from satnp.data.scenes import make_scenes
from satnp.encoders import small, squeezenet
from satnp.encoders.photos import Preprocessing

LISTS = {"train": "trainImages", "val": "devImages", "test": "testImages"}
PREPROCESSING = {name: replace(of, size=63) for name, of in squeezenet.PREPROCESSING.items()}


@dataclass(frozen=True)
class Small(small.Config):
    """The encoder `small` with as many locations and a hundredth of the work."""

    channels: tuple = (4, 8)
    preprocessing: Preprocessing = Preprocessing(16)


@dataclass(frozen=True)
class SqueezeNet(squeezenet.Config):
    """SqueezeNet on photos of a twelfth of the pixels."""

    preprocessing: Preprocessing = PREPROCESSING["caffe"]


def use_tiny_encoders(patch):
    """Both in place of the encoders, whoever makes a new model."""
    patch.setattr(small, "Config", Small)
    patch.setattr(squeezenet, "Config", SqueezeNet)
    patch.setattr(squeezenet, "PREPROCESSING", PREPROCESSING)


def write_flickr8k(root, train=24, val=6, test=4):
    """Write scenes as JPEGs in Flickr8k's official layout under `root` -> root."""
    photos, text = root / "Flicker8k_Dataset", root / "Flickr8k_text"
    photos.mkdir(parents=True)
    text.mkdir()
    lines = []
    for split, count in (("train", train), ("val", val), ("test", test)):
        scenes = make_scenes(count, split, seed=0)
        for scene in scenes:
            Image.fromarray(scene.image).resize((80, 60)).save(photos / f"{scene.name}.jpg", quality=90)
            lines += [f"{scene.name}.jpg#{k}\t{caption} ." for k, caption in enumerate(scene.captions)]
        names = "".join(f"{scene.name}.jpg\n" for scene in scenes)
        (text / f"Flickr_8k.{LISTS[split]}.txt").write_text(names)
    (text / "Flickr8k.token.txt").write_text("\n".join(lines) + "\n")
    return root


def write_weights(path, encoder, seed):
    """Random weights of the module `encoder` as .npz, in torchvision's names and layout."""
    config = encoder.Config()
    params, names = encoder.init(config, np.random.default_rng(seed)), encoder.tensor_names(config)
    np.savez(path, **{names[n]: x.transpose(3, 2, 0, 1) if x.ndim == 4 else x for n, x in params.items()})
