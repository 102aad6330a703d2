"""One split of any data set, as training, evaluation and the feature store see it."""

from typing import NamedTuple


class Split(NamedTuple):
    """Photos in a fixed order: their names, each one's captions (lists of words), and each photo as read_photo takes it.

    `scenes` holds the data.scenes.Scene of each photo where there is one, so that looking can be scored; `ids` COCO's
    number of each photo where the captions file has them.
    """

    names: tuple
    captions: tuple
    photos: tuple
    scenes: tuple | None = None
    ids: tuple | None = None
