"""The demo: train an encoder and a decoder from scratch to caption rendered scenes, and score where attention looks."""

import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np

from satnp.checkpoint import load
from satnp.data.datasets import load_split
from satnp.data.scenes import write_scene
from satnp.errors import InputError
from satnp.figures import attention_figure
from satnp.files import there, write_json
from satnp.model import NO_WORDS
from satnp.scores.evaluation import evaluate
from satnp.terminal import printable
from satnp.training.presets import PRESETS, new_model
from satnp.training.trainer import Trainer

SHOWN = {
    "true_captions": "captions that are true",
    "constant_caption_true": "  the best constant caption",
    "pointing_accuracy": "nouns with attention on the object",
    "pointing_uniform": "  attention on a random cell",
    "pointing_centre": "  attention on the central cell",
    "Bleu_4": "BLEU-4",
    "CIDEr": "CIDEr-D",
}


def run(out, seed=0, xp=np):
    """Train, then score 500 unseen scenes; write best.npz, metrics.json, attention.png and ten scenes into `out`."""
    started, out = perf_counter(), Path(out)
    preset = PRESETS["scenes"]
    preset = replace(preset, recipe=replace(preset.recipe, seed=seed))
    train, val, test = (load_split("scenes", split, seed=seed) for split in ("train", "val", "test"))
    model = new_model(preset, train).on(xp)
    photos = [out / f"{scene.name}.png" for scene in test.scenes[:10]]
    if there(out / "last.npz"):
        if not photos[0].exists():
            raise InputError(f"{out} holds a training that is not a demo; give another folder with --out")
        (out / "last.npz").unlink()
    for photo, scene in zip(photos, test.scenes, strict=False):
        write_scene(photo, scene)
    print(f"training {model.params.flat.size:,} parameters on {len(train.names)} rendered scenes (seed {seed})")
    if not Trainer(model, preset.recipe, train, val, out).run():
        return 130
    model = load(out / "best.npz").on(xp)
    scores, captions = evaluate(model, test, beam=1)
    shown = captions[0]
    alphas = shown.alpha.reshape(len(shown.alpha), -1)
    title = str(shown) or NO_WORDS
    attention_figure(test.scenes[0].image, shown.words, alphas, model.grid, out / "attention.png", title=title)
    metrics = scores | {"seconds": perf_counter() - started, "peak_memory_bytes": peak_memory(), "seed": seed}
    write_json(out / "metrics.json", metrics)

    print(f"\non {len(test.names)} unseen scenes, greedy captions:")
    for name, what in SHOWN.items():
        print(f"  {what:34} {scores[name]:.3f}")
    for scene, said in list(zip(test.scenes, captions, strict=True))[:3]:
        print(printable(f"  {scene.name}: {str(said) or NO_WORDS}"))
    used = f"{metrics['seconds']:.0f} s, {metrics['peak_memory_bytes'] / 2**20:.0f} MiB"
    print(printable(f"{used}; look at {out / 'attention.png'}"))
    folder = printable(shlex.quote(str(out)))
    print(f"\nnow try:\n  satnp caption {folder}/best.npz {folder}/test-*.png --page {folder}/page.html")
    return 0


def peak_memory():
    """Peak memory of this process in bytes; 0 where the system does not report it."""
    status = Path("/proc/self/status")
    if status.is_file() and (held := re.search(r"VmHWM:\s+(\d+)", status.read_text())):
        return int(held[1]) * 1024  # getrusage would start from the peak of the parent process
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
