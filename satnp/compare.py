"""Compare captioners: train each on the same frozen features with the same recipe, then score all on one split."""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean
from time import perf_counter

from satnp.arrays.backend import to_host, xp_of
from satnp.checkpoint import load
from satnp.data.features import feature_store, fingerprint
from satnp.early import EARLY
from satnp.encoders.clips import picture, read_input
from satnp.errors import InputError
from satnp.figures import comparison_figure
from satnp.files import read_json, there, write_json
from satnp.scores.evaluation import caveats, evaluate, meteor_or_reason, nats_per_word
from satnp.terminal import printable
from satnp.training.early import learn, mirrors
from satnp.training.resuming import differences
from satnp.training.trainer import Trainer

SHOWN = 5  # photos whose captions are in the figure
COLUMNS = {  # of the printed table; compare.json has more
    "millions": ("params", "{:.2f}M"), "seconds_a_step": ("s/step", "{:.3f}"), "nll": ("nll", "{:.3f}"),
    "Bleu_1": ("B-1", "{:.3f}"), "Bleu_4": ("B-4", "{:.3f}"), "ROUGE_L": ("ROUGE", "{:.3f}"), "CIDEr": ("CIDEr", "{:.3f}"),
    "METEOR": ("METEOR", "{:.3f}"), "true_captions": ("true", "{:.3f}"), "pointing_accuracy": ("point", "{:.3f}"),
}  # fmt: skip


def run(out, models, recipe, splits, features, split="val", beam=3, budget=None):
    """Train and score models {label: Model with a frozen encoder} in the order given -> exit status

    recipe: the Recipe of all; splits {"train": Split, "val": Split, split: Split}; features: the folder of the stored
    features; budget: minutes of training steps for each model, or None for the recipe's epochs. Writes a folder for each
    model, compare.json with a row for each, and compare.png into `out`. A comparison that was interrupted goes on with the
    same call: models that have their row are not trained again.
    Raises InputError if `out` has another comparison.
    """
    out = Path(out)
    rows = _read(out)
    setting = {"data": _digest(splits), "split": split, "beam": beam, "budget": budget, "recipe": asdict(recipe)}
    for row in rows:
        of_row = setting | _network(models[row["captioner"]]) if row["captioner"] in models else setting
        said = differences({name: row.get(name) for name in of_row}, of_row)
        if said:
            raise InputError(
                f"{out} has a comparison of {row['captioner']} with other options: {said}; leave these as they "
                "were, or give another --out"
            )
    if not all(map(_is_row, rows)):
        raise _no_comparison(out)
    done = {row["captioner"]: row for row in rows}
    for label, model in models.items():
        if label not in done:
            row = _row(out / label.replace(":", "_"), model, recipe, splits, features, split, beam, budget)
            if row is None:
                print("run the same command again to continue")
                return 130
            done[label] = {"captioner": label, **row, **setting, **_network(model)}
            write_json(out / "compare.json", list(done.values()))
    rows = [done[label] for label in models]
    print(f"\n{len(splits[split].names)} photos of {split}, beam {beam}, seed {recipe.seed}; the encoder is not trained")
    print("\n".join(table(rows)))
    for note in caveats(next(iter(models.values())), splits[split]):
        print(f"note: {note}")
    config = next(iter(models.values())).encoder_config
    photos = [
        (name, picture(read_input(config, photo, resize=False)))
        for name, photo in zip(splits[split].names, splits[split].photos[:SHOWN], strict=False)
    ]
    comparison_figure(rows, photos, out / "compare.png")
    print(printable(f"{out / 'compare.json'}, {out / 'compare.png'}"))
    return 0


def _read(out):
    """The rows of the comparison in the folder `out`, none if it has none."""
    if there(out / "last.npz", Path.exists):
        raise InputError(f"{out} holds a training; give another --out")
    path = out / "compare.json"
    rows = read_json(path) if there(path, Path.exists) else []
    match rows:
        case [*_] if all(isinstance(row, dict) and isinstance(row.get("captioner"), str) for row in rows):
            return rows
    raise _no_comparison(out)


def _no_comparison(out):
    return InputError(f"{out / 'compare.json'} is not a comparison; move it away, or give another --out")


def _is_row(row):
    """Return whether a value of compare.json has what the table and the figure show."""
    match row:
        case {"captioner": str(), "parameters": int(), "seconds_a_step": _, "CIDEr": float(), "captions": {**said}}:
            numbers = (row.get(name) for name in (*COLUMNS, "true_captions"))
            return all(x is None or type(x) in (int, float) for x in numbers) and all(type(x) is str for x in said.values())
    return False


def _digest(splits):
    """Hash of the names and captions of the splits' photos."""
    said = {which: [split.names, split.captions] for which, split in sorted(splits.items())}
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def _network(model):
    """What a row says about the network, as JSON values."""
    return {"config": asdict(model.config), "encoder": model.encoder, "encoder_weights": fingerprint(model)}


def _row(out, model, recipe, splits, features, split, beam, budget):
    """Train one model in the folder `out`, and score its best epoch -> its row, or None if the training was interrupted"""
    if model.captioner in EARLY:
        return _row_of_early(out, model, recipe, splits, features, split)
    xp = xp_of(model.params.flat)
    stores = {
        which: feature_store(features, model, splits[which[0]], which[1])
        for which in {("train", False), ("val", False), (split, False)} | ({("train", True)} if recipe.mirror else set())
    }

    def trainer(model, recipe):
        return Trainer(
            model, recipe, splits["train"], splits["val"], out, stores["train", False], stores.get(("train", True)),
            stores["val", False],
        )  # fmt: skip

    pace = read_json(out / "pace.json")
    if not _is_pace(pace, budget):
        seconds = _seconds_a_step(trainer(replace(model, params=model.params.on(model.params.flat.copy())), recipe))
        pace = {"seconds_a_step": seconds, "steps": 0 if budget is None else max(1, round(60 * budget / seconds))}
        write_json(out / "pace.json", pace)
    print(f"\n{out.name}: {model.trainable.flat.size:,} parameters, {pace['seconds_a_step']:.3f} s a step")
    t = trainer(model, replace(recipe, steps=pace["steps"]))
    if (out / "last.npz").exists():
        t.resume()
        print(f"resumed at step {t.step} of {t.steps}")
    if not t.run():
        return None
    model = load(out / "best.npz").on(xp)
    scores, captions = evaluate(model, splits[split], beam, stores[split, False])
    meteor, _ = meteor_or_reason(splits[split], captions)
    return {
        "parameters": model.trainable.flat.size, "seconds_a_step": pace["seconds_a_step"], "steps": t.steps,
        "nll": nats_per_word(model, splits[split], stores[split, False]), **scores, "METEOR": meteor,
        "captions": dict(zip(splits[split].names[:SHOWN], map(str, captions), strict=False)),
    }  # fmt: skip


def _row_of_early(out, model, recipe, splits, features, split):
    """Let an early system learn, and score it -> its row, which has no steps."""
    stores = {which: feature_store(features, model, splits[which]) for which in {"train", "val", split}}
    if mirrors(model, recipe):
        stores["mirrored"] = feature_store(features, model, splits["train"], mirrored=True)
    print(f"\n{out.name}")
    model, _ = learn(model, splits, stores, out / "best.npz", recipe)
    scores, captions = evaluate(model, splits[split], 1, stores[split])
    meteor, _ = meteor_or_reason(splits[split], captions)
    return {
        "parameters": model.params.part("decoder").flat.size, "seconds_a_step": None, "steps": 0, "nll": None, **scores,
        "METEOR": meteor, "captions": dict(zip(splits[split].names[:SHOWN], map(str, captions), strict=False)),
    }  # fmt: skip


def _is_pace(pace, budget):
    """Return whether a value is what a pace.json says with this budget."""
    match pace:
        case {"seconds_a_step": float(seconds), "steps": int(steps)}:
            return seconds > 0 and (steps == 0 if budget is None else steps > 0)
    return False


def _seconds_a_step(trainer, steps=10):
    """Mean time of a training step, in seconds, after two that do not count."""
    times = []
    for _ in range(steps + 2):
        started = perf_counter()
        to_host(trainer._train_step()[1])
        times.append(perf_counter() - started)
    return mean(times[2:])


def table(rows):
    """The lines of a text table of the rows, with those of COLUMNS that have a value."""
    rows = [row | {"millions": row["parameters"] / 1e6} for row in rows]
    columns = {name: how for name, how in COLUMNS.items() if any(row.get(name) is not None for row in rows)}
    cells = [["captioner", *(short for short, _ in columns.values())]]
    for row in rows:
        cells.append([row["captioner"], *(
            "" if row.get(name) is None else how.format(row[name]).replace("0.", ".", 1 if row[name] < 1 else 0)
            for name, (_, how) in columns.items()
        )])  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [" ".join(f"{x:<{w}}" if k == 0 else f"{x:>{w}}" for k, (x, w) in enumerate(zip(line, widths, strict=True)))
            for line in cells]  # fmt: skip
