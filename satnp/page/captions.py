"""The page of `satnp caption --page`: photos with their captions, and where the network looked for each word."""

import io
from base64 import b64encode
from pathlib import Path

import numpy as np
from PIL import Image

from satnp.captioners.locations import present_regions
from satnp.encoders import reads_clips
from satnp.estimators import entropy
from satnp.model import NO_WORDS
from satnp.page import write_page
from satnp.scores.visual import visual
from satnp.terminal import printable

SIDE = 640  # pixels: larger photos are made smaller
PLAIN = 256  # pixels: photos that are not larger keep every pixel, unless that takes more than LIMIT
LIMIT = 120_000  # bytes of a photo, so that 40 photos and their maps stay below 10 MB
PNG = "data:image/png;base64,"
QUALITIES = 85, 70, 50, 30, 15  # of JPEG; the first that keeps the limit is taken


def captioner_entry(label, model):
    """What the page says about a captioner: its label (where it was read from) and its Model -> JSON values"""
    attention = getattr(model.config, "attention", None)
    return {
        "label": printable(label),
        "kind": model.captioner.replace("_", " ") + (f", {attention} attention" if attention else ""),
        "grid": list(model.grid),
        "regions": model.encoder == "regions",
        "clips": reads_clips(model.encoder),
        "sentinel": model.has_sentinel,
    }


def view_entry(model, annotations, captions, boxes=None, objects=()):
    """What a captioner says of a photo -> JSON values

    annotations (1, L, D) of the photo; captions, model.Captions, the best one first; boxes (L, 4): x0, y0, x1, y1 of its
    regions in pixels of the photo, or None for a grid; objects [(words, box)] that
    the captioner found, boxes in pixels.

    Each caption gets its words, log_prob in nats and, with attention, for each word: its map (L bytes, 255 at the largest
    weight, or at the weight 1 for regions with a sentinel; all words in base64), spread (entropy of its weights / ln L, of
    the existing locations) and strength (1 - beta of a sentinel or beta of a gate; null without these), all from 0 to 1. A
    region exists if not all of its features are 0.
    """
    if model.has_sentinel:
        strengths = [visual(caption) for caption in captions]
    else:
        strengths = model.gates(annotations, [caption.words for caption in captions])
    locations = np.prod(model.grid) if boxes is None else int(present_regions(annotations).sum())
    entries = []
    for k, caption in enumerate(captions):
        entry = {"words": [printable(word) for word in caption.words], "log_prob": caption.log_prob}
        if caption.log_prob is not None:
            entry["log_prob"] = round(caption.log_prob, 6)
        if caption.alpha is not None:
            alpha = caption.alpha.reshape(len(caption.alpha), -1)[: len(caption.words)].astype(np.float64)
            one_scale = model.has_sentinel and boxes is not None
            entry["maps"] = b64encode(_bytes(alpha, 1 if one_scale else alpha.max(axis=1, keepdims=True))).decode()
            entry["spread"] = _shares(entropy(np.log(np.maximum(alpha, 1e-30))) / np.log(max(locations, 2)))
            entry["strength"] = None if strengths is None else _shares(strengths[k])
        entries.append(entry)
    return {
        "captions": entries, "boxes": None if boxes is None else np.round(boxes, 1).tolist(),
        "objects": [{"name": printable(words), "box": np.round(box, 1).tolist()} for words, box in objects],
    }  # fmt: skip


def _bytes(alpha, largest):
    """alpha (T, L) -> bytes, 255 at `largest`, which is one weight or (T, 1)"""
    return np.rint(255 * np.minimum(alpha / np.maximum(largest, 1e-30), 1)).astype(np.uint8).tobytes()


def _shares(values):
    return [round(float(x), 3) for x in np.clip(values, 0, 1)]


def photo_entry(name, photo, views, objects=()):
    """A photo of the page: its name, (R, S, 3) RGB uint8, a view_entry of each captioner, the scene's objects if known."""
    height, width = photo.shape[:2]
    source = _data_uri(photo)
    return {
        "name": printable(name), "source": source, "width": width, "height": height, "views": views,
        "pixels": source.startswith(PNG),  # drawn pixel by pixel
        "objects": [{"name": f"{x.size} {x.colour} {x.shape}", "box": list(x.box)} for x in objects],
    }  # fmt: skip


def _data_uri(photo):
    """A photo (R, S, 3) as an address with the image in it: a PNG if it is small, else a JPEG; of at most LIMIT bytes."""
    image, file = Image.fromarray(photo), io.BytesIO()
    if max(image.size) <= PLAIN:
        image.save(file, "PNG")
        if file.tell() <= LIMIT:
            return PNG + b64encode(file.getvalue()).decode()
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    for quality in QUALITIES:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality, optimize=True)
        if file.tell() <= LIMIT:
            break
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"


def labels(paths):
    """What the page calls the checkpoints `paths`: folder and name, or the whole paths if these do not tell them apart.

    A page goes to other people, who need not read the folders of whoever wrote it.
    """
    short = {path: str(Path(*path.absolute().parts[-2:])) for path in paths}
    return [short[path] if len(set(short.values())) == len(short) else str(path) for path in paths]


def write_captions(path, captioners, photos, beam):
    """Write the page `path`: [captioner_entry], [photo_entry] with a view of each captioner, size of the beam."""
    data = {"captioners": captioners, "photos": photos, "beam": beam, "no_words": NO_WORDS}
    write_page(path, "What it said, and where it looked", data, "captions.js")
