"""Encoders compute the annotations of photos. Each module has Config, shapes, init, forward and backward.

Encoders with public weights also have LAYERS, PREPROCESSING, feature_map and load; their forward can start at any layer.
"""

from satnp.encoders import small, small_cbam, squeezenet, vgg

ENCODERS = {"small": small, "small_cbam": small_cbam, "squeezenet1_1": squeezenet, "vgg19": vgg}
