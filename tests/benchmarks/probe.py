"""Measure how much the features of EfficientNet-Lite0 say about captions: a ridge regression predicts which words they have.

    python -m tests.benchmarks.probe Flickr8k

The features are averaged over the cells of the grid. The targets are the 100 commonest content words: 1 where one of the
five captions has the word, else 0. The regression learns from 2,500 training photos; its penalty is the best on 500 others.
The score is the average precision on the 1,000 validation photos, averaged over the words.
"""

import argparse
from collections import Counter
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from time import perf_counter

import numpy as np

from satnp.arrays import runtime
from satnp.arrays.threads import ahead
from satnp.data.datasets import load_split
from satnp.encoders import efficientnet
from satnp.encoders.photos import read_photo
from satnp.scores.precision import mean_average_precision

LAYERS = "block10", "block15", "head"
SIZES = 224, 320, 448
TRAIN, CHOICE = 2500, 500
PENALTIES = 10.0 ** np.arange(-1, 6)
FUNCTION_WORDS = set(
    "a an the and or but of in on at to by for with from into onto over under up down out off through across along around "
    "near next behind front above as is are was were be being been has have having it its he she his her him they them "
    "their there that this these those while who which what one two three four some another other each both very all".split()
)


def pooled(params, config, photo):
    """The mean over the cells of each of LAYERS: photo (S, S, 3) -> list of (C,)"""
    names, found = efficientnet.LAYERS, []
    cuts = ["stem", *(names[names.index(layer) + 1] for layer in LAYERS[:-1]), None]
    x = photo[None]
    for start, stop in pairwise(cuts):
        x, _ = efficientnet.feature_map(params, config, x, start, stop)
        found.append(x.mean(axis=(0, 1, 2)))
    return found


def ridge(x, y, penalties):
    """One matrix (C + 1, words) for each penalty, whose last row is the bias: x (n, C), y (n, words)"""
    mean, centre = x.mean(axis=0), y.mean(axis=0)
    x = x - mean
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    projected = vectors.T @ (x.T @ (y - centre)) / len(x)
    for penalty in penalties * values.mean() / 100:
        W = vectors @ (projected / (values + penalty)[:, None])
        yield np.vstack([W, centre - mean @ W])


def predict(x, W):
    return x @ W[:-1] + W[-1]


def score(features, truth):
    """features, truth of the photos for training, choice and validation, in this order -> mean average precision"""
    x = features / np.sqrt(np.mean(features[:TRAIN] ** 2))
    parts = [slice(0, TRAIN), slice(TRAIN, TRAIN + CHOICE), slice(TRAIN + CHOICE, None)]

    def precision(W, part):
        scores = predict(x[part], W)
        return mean_average_precision(scores, truth[part])[0]

    fits = list(ridge(x[parts[0]], truth[parts[0]].astype(float), PENALTIES))
    return precision(max(fits, key=lambda W: precision(W, parts[1])), parts[2])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--weights", type=Path, help="default: the installed package")
    args = parser.parse_args()
    runtime.tune()
    train, val = (load_split("flickr8k", split, args.root) for split in ("train", "val"))
    photos = train.photos[: TRAIN + CHOICE] + val.photos
    words = [{word for caption in five for word in caption} for five in train.captions[: TRAIN + CHOICE] + val.captions]
    counts = Counter(word for five in train.captions for caption in five for word in caption if word not in FUNCTION_WORDS)
    common = [word for word, _ in islice(counts.most_common(), 100)]
    truth = np.array([[word in said for word in common] for said in words])
    config = efficientnet.Config()
    params = efficientnet.load(args.weights, config)
    print(f"chance {truth[TRAIN + CHOICE :].mean():.3f}")
    for size in SIZES:
        config = replace(config, preprocessing=replace(config.preprocessing, size=size))
        started = perf_counter()
        rows = list(ahead(lambda path, c=config: pooled(params, c, read_photo(path, c.preprocessing.size)), photos))
        seconds = perf_counter() - started
        for layer, features in zip(LAYERS, zip(*rows, strict=True), strict=True):
            x = np.stack(features).astype(float)
            print(f"{size} px {layer:8} {x.shape[1]:5} features: {score(x, truth):.3f}", flush=True)
        print(f"{size} px {len(photos) / seconds:.1f} photos a second", flush=True)


if __name__ == "__main__":
    main()
