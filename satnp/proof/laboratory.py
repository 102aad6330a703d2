"""The laboratory: bias, variance and learning curve of each estimator of hard attention's gradient."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from satnp.arrays.backend import to_device, xp_of
from satnp.captioners import show_attend_tell as sat
from satnp.captioners.contract import Batch
from satnp.checkpoint import load, load_training
from satnp.data.captions import pad
from satnp.data.datasets import load_split
from satnp.data.features import annotate
from satnp.errors import InputError
from satnp.figures import learning_figure, nwgm_figure, side_by_side_figure, variance_figure
from satnp.files import there, write_json
from satnp.proof.enumeration import (
    L,
    T,
    enumerate_paths,
    exact_gradient,
    gradient,
    moments,
    small_world,
    soft_gradient,
    with_coin,
)
from satnp.proof.nwgm import PAIRS, compare
from satnp.terminal import printable
from satnp.training.presets import find_preset, new_model
from satnp.training.trainer import Trainer, read_log

SAMPLES = 1, 2, 4, 8, 16, 32
DRAWS = 2000, 100  # for an estimator that cannot be enumerated: number of groups, draws in each


class Row(NamedTuple):
    """Estimator g with S = samples: bias = |E g - dL| / |dL|, variance = E |g - E g|^2 / |dL|^2, dL the exact gradient.

    bias_kind is exact (by enumeration) or sampled. bias_ci is the 95 % confidence interval of a sampled bias.
    """

    estimator: str
    baseline: str
    bias: float
    bias_kind: str
    bias_ci: list | None
    variance: float
    samples: int


def table(seed=0):
    """Every estimator with every baseline at every S -> [Row]

    The objective of the last rows, `reinforce_whole`, also has the penalty and the entropy. Their gradients are computed
    for the sampled path, without the effect on which path is sampled: this is the bias of these rows.
    """
    world = small_world(seed)
    exact, paths, soft = exact_gradient(world), enumerate_paths(world), soft_gradient(world)
    rows = []

    def add(estimator, baseline, mean, variance, S, exact=exact):
        norm = np.linalg.norm(exact)
        bias = float(np.linalg.norm(mean - exact) / norm)
        rows.append(Row(estimator, baseline, bias, "exact", None, float(variance / norm**2), S))

    for estimator in ("reinforce", "reinforce_coin", "reward_to_go", "local_expectation"):
        for baseline in sat.CHOICES["baseline"]:
            for S in SAMPLES[baseline == "leave_one_out" :]:
                mean, variance = moments(paths, estimator.removesuffix("_coin"), baseline, S)
                if estimator == "reinforce_coin":
                    mean, variance = with_coin(mean, variance, soft)
                add(estimator, baseline, mean, variance, S)
    rows += _gumbel_rows(world._replace(config=replace(world.config, estimator="gumbel_st")), exact, seed)
    add("soft", "none", soft, 0.0, 1)
    world = small_world(seed, penalty=1.0, entropy_weight=0.1)
    whole, paths = exact_gradient(world), enumerate_paths(world)
    for S in SAMPLES:
        add("reinforce_whole", "none", *moments(paths, "reinforce", "none", S), S, whole)
    return rows


def _gumbel_rows(world, exact, seed):
    """Rows of gumbel_st. Its noise is continuous, so its mean is over DRAWS; the bias is corrected for sampling error."""
    rng, (groups, size) = np.random.default_rng([seed, 1]), DRAWS
    batch = Batch(*(np.repeat(x, size, axis=0) for x in world.batch[:3]))
    means = []
    for _ in range(groups):
        noise = sat.draw_noise(world.config, T, size, L, rng)
        means.append(gradient(sat.forward(world.params, world.config, batch, noise)[1]))
    means = np.array(means)
    off, norm, variance = means.mean(axis=0) - exact, np.linalg.norm(exact), size * means.var(axis=0, ddof=1).sum()
    bias = np.sqrt(max(off @ off - variance / (groups * size), 0)) / norm
    error = 1.96 * (means @ off / np.linalg.norm(off)).std(ddof=1) / np.sqrt(groups) / norm
    interval = [float(max(bias - error, 0)), float(bias + error)]
    return [Row("gumbel_st", "none", float(bias), "sampled", interval, float(variance / S / norm**2), S) for S in SAMPLES]


def convergence(seed=0, repeats=300):
    """The exponent k of error ~ S^k for an estimate from S sampled paths, S from 1 to 256; it is near -1/2.

    Paths are drawn as in training, with the baseline fixed at E[r].
    """
    rng, world = np.random.default_rng([seed, 2]), small_world(seed, baseline="moving_average")
    exact, paths, S = exact_gradient(world), enumerate_paths(world), np.array([1, 4, 16, 64, 256])
    settled, errors = np.array(paths.p @ paths.log_p.sum(axis=1)), []
    for count in S:
        config, squares = replace(world.config, samples=int(count)), []
        for _ in range(repeats):
            noise = sat.draw_noise(config, T, 1, L, rng)._replace(baseline=settled)
            g = gradient(sat.forward(world.params, config, world.batch, noise)[1])
            squares.append(((g - exact) ** 2).sum())
        errors.append(np.sqrt(np.mean(squares)))
    return np.polyfit(np.log(S), np.log(errors), 1)[0]


def report(rows, S=2):
    """Yield a table of the rows at one S, with each variance relative to plain REINFORCE's."""
    rows = [row for row in rows if row.samples == S or row.estimator == "soft"]
    plain = next(row for row in rows if (row.estimator, row.baseline) == ("reinforce", "none"))
    yield f"{'estimator':19}{'baseline':16}{'bias':>9}{'variance':>11}   of plain REINFORCE's"
    for row in rows:
        share = "(other objective)" if row.estimator == "reinforce_whole" else f"{row.variance / plain.variance:.4f}"
        yield f"{row.estimator:19}{row.baseline:16}{row.bias:9.1e}{row.variance:11.4f}   {share}"
    for row in rows:
        if row.bias_ci is not None:
            low, high = row.bias_ci
            yield f"{row.estimator}'s noise is continuous: its bias is sampled, {low:.4f} to {high:.4f} (95 %)"
    yield "reinforce_whole's objective also has penalty 1 and entropy 0.1; its gradient"
    yield "leaves out how these two depend on which path is sampled"


# What each learning curve changes in the preset, which samples one path a caption. Only reinforce_coin has a coin.
CURVES = {
    "soft": {"attention": "soft"},
    "reinforce": {"estimator": "reinforce", "coin": "none"},
    "reinforce_coin": {"estimator": "reinforce", "coin": "image"},
    "reward_to_go": {"estimator": "reward_to_go", "coin": "none"},
    "local_expectation": {"estimator": "local_expectation", "coin": "none"},
    "gumbel_st": {"estimator": "gumbel_st", "coin": "none"},
}


def run(out, seed=0, xp=np):
    """Write estimators.json and variance.png, train CURVES, write nwgm.json and the other figures -> exit status"""
    out = Path(out)
    if there(out / "curves", Path.exists) and not (out / "estimators.json").exists():
        raise InputError(f"{out / 'curves'} was not written by this command; give another folder with --out")
    rows = table(seed)
    write_json(out / "estimators.json", [row._asdict() for row in rows])
    variance_figure(rows, out / "variance.png")
    print(f"an estimate from 2 of {L**T} paths, compared with the exact gradient over all paths and relative to it:")
    for line in report(rows):
        print(line)
    print(f"the error of the mean over S paths falls as S^{convergence(seed):.3f}\n")
    trained = learning_curves(out / "curves", xp, seed)
    if trained is None:
        return 130
    learning_figure({name: read_log(folder / "metrics.jsonl") for name, folder in trained.items()}, out / "curves.png")
    soft = load(trained.pop("soft") / "best.npz").on(xp)
    pointing = {name: load_training(path / "best.npz")[2]["val"]["pointing_accuracy"] for name, path in trained.items()}
    best = max(pointing, key=pointing.get)
    hard = load(trained[best] / "best.npz").on(xp)
    scene = load_split("scenes", "test", seed=seed).scenes[0]
    said = [(name, model.caption(scene.image, beam=1)) for name, model in (("soft", soft), (f"hard ({best})", hard))]
    lines = [(name, caption.words, caption.alpha.reshape(len(caption.alpha), -1)) for name, caption in said]
    side_by_side_figure(scene.image, lines, soft.grid, out / "soft_and_hard.png")
    distances = approximation(soft, load_split("scenes", "val", seed=seed))
    nwgm_figure(distances, out / "nwgm.png")
    rows = distances_table(distances)
    write_json(out / "nwgm.json", rows)
    print("\ndistance between predictions of the next word: median (largest) total variation")
    print(f"{'tanh':5}{'h':12}" + "".join(f"{pair:>19}" for pair in PAIRS))
    for row in rows:
        shown = (f"{row[pair]['median']:.1e} ({row[pair]['largest']:.1e})" for pair in PAIRS)
        print(f"{row['tanh']:5}{row['h']:12}" + "".join(f"{text:>19}" for text in shown))
    print(printable(f"look at {out}: " + ", ".join(path.name for path in sorted(out.glob("*.png")))))
    return 0


def distances_table(distances):
    """nwgm.compare as JSON rows: the median and the largest distance of each pair."""
    return [
        {"tanh": "on" if tanh else "off", "h": h}
        | {pair: {"median": float(np.median(x)), "largest": float(x.max())} for pair, x in pairs.items()}
        for (tanh, h), pairs in distances.items()
    ]


def approximation(soft, split, photos=100):
    """nwgm.compare, in float64, on the first caption of each of the first `photos` photos of a split."""
    captions, mask = pad([soft.vocabulary.encode(captions[0]) for captions in split.captions[:photos]])
    annotations = annotate(soft, split.photos[:photos]).astype(float)
    decoder, xp = soft.params.part("decoder"), xp_of(soft.params.flat)
    batch = Batch(*(to_device(x, xp) for x in (annotations, captions, mask.astype(float))))
    return compare(decoder.on(decoder.flat.astype(float)), soft.config, batch)


def learning_curves(out, xp=np, seed=0, epochs=1):
    """Train each of CURVES on the same scenes from the same initial parameters -> {name: folder}, or None if interrupted"""
    preset = find_preset("scenes", attention="hard")
    train, val = (load_split("scenes", split, seed=seed) for split in ("train", "val"))
    trained = {}
    for name, choices in CURVES.items():
        config, recipe = preset.config | choices, replace(preset.recipe, seed=seed, epochs=epochs, validate_every=300)
        folder = out / name
        (folder / "last.npz").unlink(missing_ok=True)
        print(f"{name}: {recipe.epochs} epoch of {len(train.names)} scenes")
        model = new_model(replace(preset, config=config, recipe=recipe), train).on(xp)
        if not Trainer(model, recipe, train, val, folder).run():
            return None
        trained[name] = folder
    return trained
