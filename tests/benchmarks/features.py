"""Measure the feature store: peak memory, photos per second, and whether killed runs give the same bytes.

    python -m tests.benchmarks.features Flickr8k squeezenet1_1.safetensors

The photos of train and val are stored twice: once without interruption, and once by processes that are killed (SIGKILL) at
random moments (--seed).
"""

import argparse
import filecmp
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np

from satnp.data.datasets import load_split
from satnp.data.features import feature_store
from satnp.data.split import Split
from satnp.demo import peak_memory
from satnp.files import read_json
from satnp.training.presets import find_preset, new_model


def extract(root, weights, folder):
    """Compute the missing features in `folder`; print the photos, seconds and peak memory in MiB of this process."""
    train, val = (load_split("flickr8k", split, root) for split in ("train", "val"))
    split = Split(train.names + val.names, train.captions + val.captions, train.photos + val.photos)
    model = new_model(find_preset("flickr8k", weights=weights), split, weights)
    before, started = sum(note["done"] for note in notes(folder)), perf_counter()
    feature_store(folder, model, split)
    print(len(split.names) - before, perf_counter() - started, peak_memory() / 2**20)


def notes(folder):
    return [note for path in folder.glob("*.json") if (note := read_json(path))]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.folder:
        return extract(args.root, args.weights, args.folder)

    def child(folder):
        command = [sys.executable, "-m", "tests.benchmarks.features", args.root, args.weights, "--folder", folder]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def finish(process):
        photos, seconds, peak = map(float, process.communicate()[0].split())
        print(f"{photos:.0f} photos in {seconds:.0f} s, {photos / seconds:.1f} a second, at most {peak:.0f} MiB", flush=True)
        return seconds

    with tempfile.TemporaryDirectory() as name:
        whole, killed = Path(name) / "whole", Path(name) / "killed"
        seconds = finish(child(whole))
        for wait in np.random.default_rng(args.seed).uniform(0, 2 * seconds / (args.kills + 1), args.kills):
            process = child(killed)
            try:
                process.wait(wait)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
            print(f"killed after {wait:.1f} s: {sum(note['done'] for note in notes(killed))} photos are noted", flush=True)
        finish(child(killed))
        files = sorted(path.name for path in whole.iterdir())
        same = filecmp.cmpfiles(whole, killed, files, shallow=False)[0]
        print(f"{len(same)} of {len(files)} files have the same bytes: {', '.join(files)}")
        return 0 if same == files == sorted(path.name for path in killed.iterdir()) else 1


if __name__ == "__main__":
    sys.exit(main())
