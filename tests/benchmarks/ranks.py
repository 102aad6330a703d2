"""Compare ranks with threads, at features and at training steps: one rank on all cores, and several that share the cores.

    python -m tests.benchmarks.ranks Flickr8k squeezenet1_1.safetensors

Measures photos per second for the feature store of the val photos, and seconds per training step on them with the preset for
Flickr8k (soft attention, frozen encoder). Both ways run in turn, --rounds times, each in new processes; prints medians.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

from satnp.arrays import ranks
from satnp.arrays.threads import cores
from satnp.data.datasets import load_split
from satnp.data.features import feature_store
from satnp.training.presets import find_preset, new_model
from satnp.training.trainer import Trainer

STEPS = 15


def measure(root, weights, folder):
    """Rank 0 prints its number of threads, photos per second, and the seconds of each step except the first three."""
    world, preset = ranks.world(), find_preset("flickr8k", weights=weights)
    train, val = (load_split("flickr8k", split, root) for split in ("train", "val"))
    model = new_model(preset, train, weights)
    started = perf_counter()
    store = feature_store(folder, model, val, ranks=world)
    photos = len(store) / (perf_counter() - started)
    trainer, seconds = Trainer(model, preset.recipe, val, val, folder, store, store, store, ranks=world), []
    for _ in range(STEPS):
        started = perf_counter()
        trainer._train_step()
        seconds.append(perf_counter() - started)
    if world.rank == 0:
        print(json.dumps([cores(), photos, seconds[3:]]))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.folder:
        return measure(args.root, args.weights, args.folder)
    found = {1: [], args.ranks: []}
    for _ in range(args.rounds):
        for count in found:
            with tempfile.TemporaryDirectory() as folder:
                line = ["-m", "tests.benchmarks.ranks", args.root, args.weights, "--folder", folder]
                line = ranks.command(count, line) if count > 1 else [sys.executable, *line]
                child = subprocess.run(line, capture_output=True, text=True, check=True)
                found[count].append(json.loads(child.stdout.splitlines()[-1]))
    for count, rounds in found.items():
        threads, photos, steps = rounds[0][0], [r[1] for r in rounds], [x for r in rounds for x in r[2]]
        print(f"{count} x {threads} threads: {median(photos):.1f} photos/s ({min(photos):.1f} to {max(photos):.1f}), "
              f"{median(steps):.3f} s a step ({min(steps):.3f} to {max(steps):.3f})")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
