"""Encoders compute the annotations of photos. Each is a module or an object that has Config, shapes, init, forward and
backward.

Encoders with public weights also have layers, PREPROCESSING, feature_map and load; their forward can start at any layer. If
the public weights lack the last layers, NEW_LAYER is the first of these, and training starts there. Where the weights come
with an installed package, `packaged_weights` finds their file, and load(None, config) reads it. An encoder of clips has
BASE, the name of the encoder of photos that reads its frames. `regions` takes the place of an encoder: its annotations are
read from a file.
"""

from satnp.encoders import cbam, clips, efficientnet, regions, small, squeezenet, vgg

ENCODERS = {
    "small": small,
    "small_frames": clips,
    "small_cbam": cbam.WithCBAM(small),
    "squeezenet1_1": squeezenet,
    "squeezenet1_1_cbam": cbam.PretrainedWithCBAM(squeezenet),
    "efficientnet_lite0": efficientnet,
    "vgg19": vgg,
    "vgg19_cbam": cbam.PretrainedWithCBAM(vgg),
    "regions": regions,
}


def reads_clips(name):
    """Return whether the encoder of this name reads clips, and not photos."""
    return hasattr(ENCODERS[name], "BASE")
