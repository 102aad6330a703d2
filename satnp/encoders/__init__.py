"""A photo becomes annotations. Each module has Config, shapes, init, forward and backward.

Those with public weights also have LAYERS, PREPROCESSING and load, and forward takes up at a layer.
"""

from satnp.encoders import small, squeezenet, vgg

ENCODERS = {"small": small, "squeezenet1_1": squeezenet, "vgg19": vgg}
