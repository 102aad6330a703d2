"""Measure what captioners of clips need: each is trained without some parts of the frames' vectors, which are set to 0.

    python -m tests.benchmarks.clips satnp-demo/best.npz out

The parts are those of satnp/encoders/clips.py. `backwards` are captions that are true of the clip played backwards. A beam
of 12 gives the best sentence that names a second object, which greedy captions hardly ever do.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from time import process_time

import numpy as np

from satnp import load
from satnp.arrays import runtime
from satnp.data.datasets import load_splits
from satnp.data.features import feature_store
from satnp.data.moving_scenes import RELATIONS, is_true, parse, relation_of
from satnp.scores.evaluation import evaluate
from satnp.training.presets import find_preset, new_model
from satnp.training.trainer import Trainer

C = 128  # features of a location
PARTS = {"places": slice(C, 3 * C), "change": slice(3 * C, 4 * C), "time": slice(4 * C, None)}
RUNS = [  # captioner, epochs, parts that are left out
    ("show_and_tell", 4, ()), ("s2vt", 10, ()), ("show_attend_tell", 5, ()), ("show_attend_tell", 5, ("time",)),
    ("show_attend_tell", 3, ("time", "change")), ("show_attend_tell", 5, ("change",)), ("s2vt", 4, ()),
    ("s2vt", 4, ("change",)), ("s2vt", 4, ("change", "places")),
]  # fmt: skip


def relations(model, split, features):
    """The share of the clips with a sentence in a beam of 12 that names a second object, and the shares of the best of these
    that are true, have the right relation, and name the right second object."""
    found = []
    for clip, captions in zip(split.scenes, model.decode(features.astype(np.float32), 12, every=True), strict=True):
        said = [" ".join(model.vocabulary.decode(decoded.ids)) for decoded in captions]
        for sentence, parsed in zip(said, map(parse, said), strict=True):
            if parsed is not None and parsed.motion in RELATIONS:
                second = clip.others[0]
                holds = parsed.motion == relation_of(clip, second)
                found.append((is_true(sentence, clip), holds, parsed.kinds[1] == second.kind))
                break
    return np.round([len(found) / len(split.names), *np.mean(found or [(0, 0, 0)], axis=0)], 3).tolist()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoder", type=Path, help="the checkpoint of the demo")
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    runtime.tune()
    splits, encoder = load_splits("moving_scenes", ("train", "val", "test")), load(args.encoder)
    for name, epochs, without in RUNS:
        preset = find_preset("moving_scenes", name)
        preset = replace(preset, recipe=replace(preset.recipe, epochs=epochs))
        model = new_model(preset, splits["train"], encoder=encoder)
        stores = {which: np.array(feature_store(args.out, model, splits[which])) for which in splits}
        for store in stores.values():
            for part in without:
                store[..., PARTS[part]] = 0
        out, started = args.out / "-".join([name, str(epochs), *without]), process_time()
        Trainer(model, preset.recipe, splits["train"], splits["val"], out, stores["train"], None, stores["val"]).run()
        seconds, best = process_time() - started, load(out / "best.npz")
        scores, _ = evaluate(best, splits["test"], 1, stores["test"])
        print(f"{name}, {epochs} epochs, {seconds:.0f} s of the processor, without {', '.join(without) or 'nothing'}: "
              f"true {scores['true_captions']:.3f}, backwards {scores['true_backwards']:.3f}; with a second object: share, "
              f"true, relation, object {relations(best, splits['test'], stores['test'])}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
