"""The page of a training, OUT/progress.html: its loss and its scores so far."""

from math import ceil, isfinite
from time import time

import numpy as np

from satnp.page import write_page

RELOAD = 10  # seconds between two reloads of the page while the training runs
POINTS = 400  # largest number of points of a line; more are averaged
CHARTS = {  # title: (unit, {name of a line: (kind of record, field)})
    "Loss": ("nats a word", {"training": ("train", "loss"), "validation": ("val", "nll")}),
    "Validation scores": (
        "0 to 1",
        {
            "BLEU-1": ("val", "Bleu_1"), "BLEU-2": ("val", "Bleu_2"), "BLEU-3": ("val", "Bleu_3"),
            "BLEU-4": ("val", "Bleu_4"), "ROUGE-L": ("val", "ROUGE_L"), "true captions": ("val", "true_captions"),
            "pointing accuracy": ("val", "pointing_accuracy"),
        },
    ),
    "CIDEr": ("0 to 10", {"validation": ("val", "CIDEr"), "reward of drawn captions": ("train", "cider")}),
    "Attention": ("nats", {"entropy of alpha": ("train", "alpha_entropy")}),
}  # fmt: skip
COLUMNS = {"loss": "nll", "BLEU-4": "Bleu_4", "CIDEr": "CIDEr", "ROUGE-L": "ROUGE_L", "true captions": "true_captions",
           "pointing": "pointing_accuracy"}  # fmt: skip


def write_progress(path, records, name, step, steps, state, best=None):
    """Write the page `path` of the training `name`, which has done `step` of its `steps` minibatches.

    records: the lines of metrics.jsonl as dicts, see figures.curves_figure; state: "running", and the page reloads itself
    every RELOAD seconds unless somebody is reading its values, or what ended the training; best: the step of the best
    validation so far, or None.
    """
    charts = []
    for title, (unit, lines) in CHARTS.items():
        found = {name: points for name, source in lines.items() if (points := _points(records, *source))}
        if found:
            lines = [{"name": name, "dots": lines[name][0] == "val", "points": points} for name, points in found.items()]
            charts.append({"title": title, "unit": unit, "lines": lines})
    validations = [record for record in records if record["kind"] == "val"]
    columns = {title: field for title, field in COLUMNS.items() if any(_is_number(x.get(field)) for x in validations)}
    rows = [
        {"epoch": x["epoch"], "step": x["step"], "best": x["step"] == best,
         "scores": [x[field] if _is_number(x.get(field)) else None for field in columns.values()]}
        for x in validations if _is_number(x.get("epoch"))
    ]  # fmt: skip
    data = {
        "state": state, "reload": RELOAD if state == "running" else None, "step": step, "steps": steps,
        "written": round(time()), "charts": charts, "columns": list(columns), "rows": rows,
    }  # fmt: skip
    write_page(path, f"Training {name}", data, "progress.js")


def _points(records, kind, field):
    """[[epoch, value]] of a field of the records of a kind; means over neighbours if there are more than POINTS."""
    found = [
        (x["epoch"], x[field]) for x in records
        if x["kind"] == kind and _is_number(x.get(field)) and _is_number(x.get("epoch"))
    ]  # fmt: skip
    n = ceil(len(found) / POINTS)
    means = (np.mean(found[k : k + n], axis=0) for k in range(0, len(found), n or 1))
    return [[round(float(epoch), 4), round(float(value), 5)] for epoch, value in means]


def _is_number(value):
    return isinstance(value, int | float) and isfinite(value)
