"""Every kind of data that --data can name."""

from satnp.data import flickr8k, scenes
from satnp.data.captions import tokenise
from satnp.data.split import Split
from satnp.errors import InputError

KINDS = ("scenes", "flickr8k")
SCENES = {"train": 5500, "val": 500, "test": 500}


def load_split(kind, split, root=None, seed=0):
    """The `split` (train, val or test) of data of `kind` (scenes or flickr8k), as a Split.

    `root` is the folder with the files of a kind that has files; `seed` draws the scenes.
    """
    if kind == "scenes":
        drawn = scenes.make_scenes(SCENES[split], split, seed)
        return Split(
            tuple(scene.name for scene in drawn),
            tuple([tokenise(caption) for caption in scene.captions] for scene in drawn),
            tuple(scene.image for scene in drawn),
            tuple(drawn),
        )
    if root is None:
        raise InputError(f"--data {kind} needs its folder; give it with --root DIR")
    return flickr8k.load_split(root, split)
