"""The page of `satnp caption --page`: photos with their captions, and where the network looked for each word."""

import io
from base64 import b64encode

import numpy as np
from PIL import Image

from satnp.estimators import entropy
from satnp.model import NO_WORDS
from satnp.page import write_page
from satnp.scores.visual import visual
from satnp.terminal import printable

SIDE = 640  # pixels: larger photos are made smaller
PLAIN = 256  # pixels: photos that are not larger keep every pixel
LIMIT = 120_000  # bytes of a photo, so that 40 photos and their maps stay below 10 MB
QUALITIES = 85, 70, 50, 30, 15  # of JPEG; the first that keeps the limit is taken


def captioner_entry(label, model):
    """What the page says about a captioner: its label (where it was read from) and its Model -> JSON values"""
    attention = getattr(model.config, "attention", None)
    return {
        "label": printable(label),
        "kind": model.captioner.replace("_", " ") + (f", {attention} attention" if attention else ""),
        "grid": list(model.grid),
        "regions": model.encoder == "regions",
        "sentinel": model.has_sentinel,
    }


def view_entry(model, annotations, captions, boxes=None):
    """What a captioner says of a photo -> JSON values

    annotations (1, L, D) of the photo; captions, model.Captions, the best one first; boxes (k, 4): x0, y0, x1, y1 of its
    regions in pixels of the photo, 0 for a region that does not exist, or None.

    Each caption gets its words, log_prob in nats and, with attention, for each word: its map (L bytes, 255 at the largest
    weight, all words in base64), spread (entropy of its weights / ln L, of the existing locations) and strength (1 - beta of
    a sentinel or beta of a gate; null without these), all from 0 to 1.
    """
    if model.has_sentinel:
        strengths = [visual(caption) for caption in captions]
    else:
        strengths = model.gates(annotations, [caption.words for caption in captions])
    locations = np.prod(model.grid) if boxes is None else np.any(boxes, axis=1).sum()
    entries = []
    for k, caption in enumerate(captions):
        entry = {"words": [printable(word) for word in caption.words], "log_prob": round(caption.log_prob, 6)}
        if caption.alpha is not None:
            alpha = caption.alpha[: len(caption.words)].reshape(len(caption.words), -1).astype(np.float64)
            entry["maps"] = b64encode(_bytes(alpha)).decode()
            entry["spread"] = _shares(entropy(np.log(np.maximum(alpha, 1e-30))) / np.log(max(locations, 2)))
            entry["strength"] = None if strengths is None else _shares(strengths[k])
        entries.append(entry)
    return {"captions": entries, "boxes": None if boxes is None else np.round(boxes, 1).tolist()}


def _bytes(alpha):
    """alpha (T, L) -> bytes, of each word 255 at its largest weight"""
    largest = np.maximum(alpha.max(axis=1, keepdims=True), 1e-30)
    return np.rint(255 * alpha / largest).astype(np.uint8).tobytes()


def _shares(values):
    return [round(float(x), 3) for x in np.clip(values, 0, 1)]


def photo_entry(name, photo, views, objects=()):
    """A photo of the page: its name, (R, S, 3) RGB uint8, a view_entry of each captioner, the scene's objects if known."""
    height, width = photo.shape[:2]
    return {
        "name": printable(name), "source": _data_uri(photo), "width": width, "height": height, "views": views,
        "objects": [{"name": f"{x.size} {x.colour} {x.shape}", "box": list(x.box)} for x in objects],
    }  # fmt: skip


def _data_uri(photo):
    """A photo (R, S, 3) as an address with the image in it: a PNG if it is small, else a JPEG of at most LIMIT bytes."""
    image, file = Image.fromarray(photo), io.BytesIO()
    if max(image.size) <= PLAIN:
        image.save(file, "PNG")
        return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    for quality in QUALITIES:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality, optimize=True)
        if file.tell() <= LIMIT:
            break
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"


def write_captions(path, captioners, photos, beam):
    """Write the page `path`: [captioner_entry], [photo_entry] with a view of each captioner, size of the beam."""
    data = {"captioners": captioners, "photos": photos, "beam": beam, "no_words": NO_WORDS}
    write_page(path, "What it said, and where it looked", data, "captions.js")
