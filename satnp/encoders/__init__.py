"""Floor 2: a photo becomes annotations. Each module has Config, shapes, init, forward and backward."""

from satnp.encoders import small, squeezenet

ENCODERS = {"small": small, "squeezenet1_1": squeezenet}
