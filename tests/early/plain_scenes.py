"""Annotations of rendered scenes that need no encoder."""

import numpy as np

from satnp.early.objects import CLASSES, Config, targets


def annotations_of(scenes):
    """Annotations (N, 64, 16) that say plainly, cell by cell, what the targets of the detector of objects are."""
    wanted = targets(Config(), [scene.objects for scene in scenes])
    there = wanted.object[..., None]
    one_hot = (there * np.eye(len(words))[getattr(wanted, name)] for name, words in CLASSES.items())
    return np.concatenate([there, *one_hot, wanted.box], axis=2)
