"""What tests of pages share: hand-made captions on a page, and the data in a page that was written."""

import json
import re
from types import SimpleNamespace

import numpy as np

from satnp.data.scenes import Thing
from satnp.model import Caption
from satnp.page.captions import captioner_entry, photo_entry, view_entry, write_captions


def page_data(path):
    """The JSON in a page."""
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(encoding="utf-8"))
    return json.loads(found)


def a_model(grid=(3, 5), captioner="adaptive", sentinel=False, gates=None, encoder="small"):
    """As much of a model.Model as a page reads; gates: the beta of each word of its captions, or None."""
    return SimpleNamespace(
        grid=grid, captioner=captioner, encoder=encoder, has_sentinel=sentinel, config=SimpleNamespace(),
        gates=lambda annotations, captions: gates and [np.full(len(words), gates) for words in captions],
    )  # fmt: skip


def looking(words, cells, grid=(3, 5), weight=1.0, log_prob=-2.5):
    """A Caption whose words each look at one cell (row, column), with this weight; and a uniform map for <end>."""
    alpha = np.zeros((len(words) + 1, *grid))
    for t, cell in enumerate(cells):
        alpha[(t, *cell)] = weight
    alpha[-1] = 1 / alpha[-1].size
    return Caption(words, log_prob, alpha)


def write_hostile(path, words=("</script><script>window.hacked=1</script>", "<b>a&amp;", '"dog"', "runs")):
    """A page of two photos and two captioners, whose words and names are also HTML: a grey photo with a long name and a
    scene; the first captioner has a sentinel, the second no attention. -> the words"""
    words = list(words)
    cells = [(0, 0), (0, 4), (2, 2), (2, 0)][: len(words)]
    photo = np.full((240, 400, 3), 200, np.uint8)
    scene = np.full((64, 64, 3), 120, np.uint8)
    looks, blind = a_model(sentinel=True), a_model(captioner="show_and_tell")
    captions = [looking(words, cells, weight=0.75), looking(["a", "cat"], [(1, 1), (1, 2)], log_prob=-4.125)]
    views = [view_entry(looks, None, captions), view_entry(blind, None, [Caption(["a", "dog"], -1.0, None)])]
    things = (Thing("red", "circle", "big", (4, 2, 22, 20)), Thing("blue", "square", "small", (44, 40, 54, 50)))
    photos = [
        photo_entry("\"><img src=x onerror='window.hacked=2'>" + 60 * "long" + ".jpg", photo, views),
        photo_entry("scene.png", scene, views, things),
    ]
    captioners = [captioner_entry("soft/<i>best.npz", looks), captioner_entry("other/best.npz", blind)]
    write_captions(path, captioners, photos, 2)
    return words
