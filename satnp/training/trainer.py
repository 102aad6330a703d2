"""One trainer for every captioner: batches of one length, an optimiser, validation, early stopping, checkpoints.

The checkpoint contains everything that determines the next step (parameters, optimiser, averaged parameters, random
generator, batch order, early-stopping state), so on the same machine a resumed run gives the same bits as an uninterrupted
one. Ranks only share each minibatch, so another number of them gives the same run within rounding.
"""

import json
import signal
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from math import prod
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from satnp.arrays import optim
from satnp.arrays.backend import Uploads, to_device, to_host, xp_of
from satnp.arrays.ranks import ALONE
from satnp.arrays.shares import Gradient, of_captions, parameters_of_a_word
from satnp.captioners import CAPTIONERS
from satnp.captioners.config import check_choices
from satnp.captioners.contract import Corpus
from satnp.checkpoint import load_training, save
from satnp.data.captions import batches_of_one_length, pad
from satnp.data.features import fingerprint, read_images
from satnp.decoding import LENGTH_SCORES, LengthScore
from satnp.encoders import ENCODERS
from satnp.errors import InputError
from satnp.files import refusing, remove_leftovers, replacing, there
from satnp.page.progress import RELOAD, write_progress
from satnp.scores.evaluation import cannot_tell, evaluate, nats_per_word
from satnp.terminal import printable
from satnp.training.policies import scheduled_words
from satnp.training.resuming import differences, digest
from satnp.training.self_critical import Reward, draw_captions, policy
from satnp.training.warning_signs import Watch


@dataclass(frozen=True)
class Recipe:
    """The settings of a training. A step is one minibatch; an epoch uses every caption once."""

    epochs: int = 10
    steps: int = 0                # minibatches; 0: those of `epochs`
    batch_size: int = 64
    optimiser: str = "adam"       # sgd, rmsprop or adam
    learning_rate: float = 1e-3
    encoder_learning_rate: float = 1e-4  # for the fine-tuned layers of a pretrained encoder
    warmup: int = 200             # steps in which the learning rate rises linearly
    schedule: str = "cosine"      # cosine: falls to 0 at the last step; constant
    clip: float = 5.0             # largest norm of the whole gradient
    averaging: float = 0.0        # decay of the moving average of the parameters that is validated and kept; 0: none
    scheduled_sampling: float = 0.0  # chance, at the last step, to read an own word for a true one; rises linearly from 0
    label_smoothing: float = 0.0  # share of each target that all words get alike; the logged loss is without it
    objective: str = "cross_entropy"  # cross_entropy; scst: the CIDEr-D of captions that the captioner draws
    temperature: float = 1.0      # scst: captions are drawn from p^(1/temperature)
    samples: int = 5              # scst: captions drawn for each photo of a minibatch of `batch_size` photos
    baseline: str = "leave_one_out"  # scst: the mean of the photo's other captions; greedy: the greedy caption
    mirror: bool = False          # mirror each photo with probability one half
    min_count: int = 5            # the vocabulary has the words that occur at least this often
    validate_every: int = 0       # steps; 0: once an epoch
    select: str = "Bleu_4"        # validation score that chooses the best epoch: Bleu_4, CIDEr or nll; see Trainer._compare
    patience: int = 0             # validations without a better score before stopping; 0: never
    beam: int = 1                 # beam size for the validation captions
    length_score: str = "polynomial"  # captions are ranked by log p / f(T): polynomial, min_hinge, max_hinge, gaussian
    length_power: float = 0.0     # polynomial: f(T) = T^length_power; 0: by log p
    log_every: int = 10           # steps
    save_every: int = 200         # steps between two writes of last.npz
    seed: int = 0

    def __post_init__(self):
        check_choices(self, CHOICES)
        if self.objective == "scst" and self.baseline == "leave_one_out" and self.samples < 2:
            raise InputError("baseline leave_one_out compares captions of one photo; choose samples of 2 or more")
        for name in ("epochs", "batch_size", "samples", "min_count", "beam", "log_every", "save_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; choose 1 or more")
        for name in ("steps", "warmup", "validate_every", "patience", "seed"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} is {getattr(self, name)}; choose 0 or more")
        for name in ("learning_rate", "encoder_learning_rate", "clip", "temperature"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"{name} is {getattr(self, name)}; choose a number above 0")
        LengthScore(power=self.length_power)  # raises InputError
        if not 0 <= self.scheduled_sampling <= 1:
            raise InputError(f"scheduled_sampling is {self.scheduled_sampling}; choose a chance from 0 to 1")
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"label_smoothing is {self.label_smoothing}; choose a share from 0 to below 1")
        if not 0 <= self.averaging < 1:
            raise InputError(f"averaging is {self.averaging}; choose a decay from 0 to below 1")


CHOICES = {
    "optimiser": tuple(optim.OPTIMISERS),
    "schedule": ("cosine", "constant"),
    "objective": ("cross_entropy", "scst"),
    "baseline": ("leave_one_out", "greedy"),
    "select": ("Bleu_4", "CIDEr", "nll"),
    "length_score": LENGTH_SCORES,
}


class Photos:
    """The photos of the minibatches: pixels if the whole encoder is trained, else stored features (photos, ...).

    `mirrored` has the same of the mirrored photos, or is None.
    """

    def __init__(self, model, split, recipe, features=None, mirrored=None):
        self.plain, self.mirrored = features, mirrored
        if not model.keeps_features:
            self.plain = read_images(model, split.photos)
            self.mirrored = self.plain[..., ::-1, :] if recipe.mirror else None

    def batch(self, rows, rng, mine=slice(None)):
        """Host array of the photos `rows` (N,), each mirrored with probability one half if the recipe says so.

        Only the photos in the slice `mine` are read and returned.
        """
        x = self.plain[rows[mine]]
        if self.mirrored is not None:
            turned = (rng.random(len(rows)) < 0.5)[mine]
            x[turned] = self.mirrored[rows[mine][turned]]
        return x


class Passed(NamedTuple):
    """What is left of a minibatch when its gradient is known.

    words and rewards: the number of words of its captions, with self-critical training of one caption a photo, and the sum
    of the photos' mean rewards. tolds: a captioner's Told for each share of this rank with captions.
    """

    nll: object       # (), nats a caption
    baseline: object  # (), or None: for the next step
    words: float
    rewards: float
    tolds: list


class Trainer:
    """A training in the folder `out`: last.npz to resume, best.npz to use, metrics.jsonl to plot, progress.html to watch.

    With several `ranks`, each rank has a Trainer, and all of them take the same steps together. `trained`: the captioner was
    trained before, so its `prepare` is not called. `init`: a hash of the checkpoint whose parameters the model has, or None.
    """

    def __init__(
        self, model, recipe, train, val, out, features=None, mirrored=None, val_features=None, ranks=ALONE, trained=False,
        init=None,
    ):  # fmt: skip
        self.model, self.recipe, self.val, self.val_features = model, recipe, val, val_features
        self.trained, self.init = trained, init
        # what a training that is resumed must have again
        self.weights = fingerprint(model) if model.keeps_features or hasattr(ENCODERS[model.encoder], "load") else None
        self.out, self.ranks = Path(out), ranks
        self.photos = Photos(model, train, recipe, features, mirrored)
        self.captions = [(n, model.vocabulary.encode(c)) for n, captions in enumerate(train.captions) for c in captions]
        self.data = {
            "captions": digest(self.captions), "number of captions": len(self.captions),
            "photos": digest(train.names), "number of photos": len(train.names),
            "validation captions": digest(val.captions), "number of validation captions": sum(map(len, val.captions)),
            "validation photos": digest(val.names), "number of validation photos": len(val.names),
        }  # fmt: skip
        self.rng = np.random.default_rng([recipe.seed, 1])
        self.params = model.trainable
        P = self.params.flat.size
        # the buffer that the ranks sum at each step: the gradient, then statistics of the forward pass
        self.summed = xp_of(self.params.flat).zeros(P + STATISTICS, dtype=self.params.flat.dtype)
        self.grads = self.params.on(self.summed[:P])
        captions_of_a_photo = recipe.samples if recipe.objective == "scst" else 1
        self.gradient = Gradient(self.grads, parameters_of_a_word(model.params.part("decoder")) * captions_of_a_photo)
        self.memory = optim.new_state(recipe.optimiser, self.params.flat)
        self.average = self.params.flat.copy() if recipe.averaging else None
        self.baseline = xp_of(self.params.flat).zeros((), dtype=self.params.flat.dtype)  # baseline of the rewards, if any
        self.learning_rates = self._learning_rates()
        self.upload = Uploads(xp_of(self.params.flat))
        self.longest = int(np.quantile([len(ids) - 1 for _, ids in self.captions], 0.99))  # words of a drawn caption
        self.step, self.order, self.best, self.bad = 0, [], None, 0
        self.nats = self.words = self.rewards = 0.0  # sums since the last line of the log
        self.rewarded = 0  # photos in self.rewards
        self.reward = Reward(model.vocabulary, train.captions) if recipe.objective == "scst" else None
        self.watch = Watch()
        self.records, self.page_written = [], None  # on rank 0: the lines of metrics.jsonl; when progress.html was written
        self.steps_per_epoch = len(self._draw_order(np.random.default_rng(0)))
        self.steps = recipe.steps or recipe.epochs * self.steps_per_epoch

    def run(self):
        """Train until the last step, early stopping or Ctrl-C -> True unless it was interrupted."""
        recipe = self.recipe
        if self.reward and not self.trained and self.step == 0:
            raise InputError("the objective scst needs a captioner that can caption already; add --init CHECKPOINT")
        validate_every = recipe.validate_every or self.steps_per_epoch
        seen, started = 0, perf_counter()
        with self.ranks.lock(self.out / ".lock"), _interruptible(alone=self.ranks.size == 1) as signals, tqdm(
            total=self.steps, initial=self.step, unit="batch", ncols=79, bar_format=BAR
        ) as bar, self._page():  # fmt: skip
            self.ranks.once(self._begin)
            if self.step == 0 and not self.trained:
                self._prepare()
            while self.step < self.steps and not self.stopped:
                passed, norm, N = self._train_step()
                self.nats, self.words, seen = self.nats + passed.nll * N, self.words + passed.words, seen + N
                self.step += 1
                bar.update()
                interrupted = self.ranks.any(signals)
                last = self.step == self.steps
                validate = last or self.step % validate_every == 0
                save = last or interrupted or self.step % recipe.save_every == 0
                log = last or self.step % recipe.log_every == 0
                if log or validate or save:
                    loss, norm = float(to_host(self.nats)) / self.words, float(to_host(norm))
                    if not np.isfinite(loss + norm):
                        raise InputError(
                            f"the loss or its gradient is not finite at step {self.step}; "
                            "start again in a new folder, with a lower learning_rate or clip"
                        )
                if log:
                    found = self._diagnostics(passed.tolds)
                    if self.reward:
                        found["cider"] = round(self.rewards / self.rewarded, 6)
                    if self.ranks.rank == 0:
                        lr = recipe.learning_rate * self._schedule(self.step - 1)
                        self._log("train", loss=loss, grad_norm=norm, lr=lr, **found)
                        self.watch.logged(norm)
                    rate = seen / (perf_counter() - started)
                    bar.set_postfix_str(f"{loss:.3f} nats/word, |g| {norm:.2f}, {rate:.0f} images/s")
                    self.nats = self.words = self.rewards = 0.0
                    self.rewarded = 0
                    seen, started = 0, perf_counter()
                if validate:
                    said, self.best, self.bad = self.ranks.once(self._validate)
                    bar.write(said)
                    seen, started = 0, perf_counter()
                if save or self.stopped:
                    self.ranks.once(self.save)
                if interrupted and not last:
                    bar.write(printable(f"interrupted at step {self.step}; {self.out / 'last.npz'} is written"))
                    return False
        return True

    def _begin(self):
        """Clean the folder, and print the warnings that do not need a step."""
        remove_leftovers(self.out)
        self._cut_log()
        self._write_page("running")
        val = [self.model.vocabulary.encode(c) for captions in self.val.captions for c in captions]
        photos = [self.photos.plain, self.photos.mirrored if self.model.keeps_features else None, self.val_features]
        scored = [len(self.val.names), *([len(self.reward.references)] if self.reward else [])]
        self.watch.before(
            self.model, self.recipe, [ids for _, ids in self.captions], val, [x for x in photos if x is not None],
            min(scored),
        )  # fmt: skip

    def _prepare(self):
        """Call the captioner's `prepare`, if it has one, with training photos and the words of the captions."""
        model, rng = self.model, np.random.default_rng([self.recipe.seed, 2])
        captioner = CAPTIONERS[model.captioner]
        if getattr(captioner, "prepare", None) is None:
            return
        rows = rng.permutation(len(self.photos.plain))[: captioner.corpus]
        flat, size, annotations = self.params.flat, self.recipe.batch_size, None
        for part in (slice(k, k + size) for k in range(0, len(rows), size)):
            of_part, _ = model.encode(*self.upload(self.photos.batch(rows[part], rng)))
            if annotations is None:
                annotations = xp_of(flat).empty((len(rows), *of_part.shape[1:]), dtype=flat.dtype)
            annotations[part] = of_part
        words = np.concatenate([ids[1:] for _, ids in self.captions])
        counts, said = np.bincount(words, minlength=model.config.V), np.zeros((len(rows), model.config.V), bool)
        place = {n: k for k, n in enumerate(rows.tolist())}
        for n, ids in self.captions:
            if n in place:
                said[place[n], ids[1:]] = True
        corpus = Corpus(annotations, said, counts, model.vocabulary.words)
        captioner.prepare(model.params.part("decoder"), model.config, corpus)
        if self.average is not None:
            self.average[...] = self.params.flat

    @property
    def stopped(self):
        return 0 < self.recipe.patience <= self.bad

    def _train_step(self):
        """One minibatch: the forward and backward passes of encoder and captioner, then the optimiser.

        -> Passed, norm of the gradient, number of photos
        """
        if not self.order:
            self.order = self._draw_order(self.rng)
        chosen = self.order.pop(0)
        N, (mine, n) = len(chosen), self.ranks.share(len(chosen))
        passes = self._self_critical_passes(chosen, mine) if self.reward else self._cross_entropy_passes(chosen, mine)
        passed = self._sum(self.gradient.compute(passes, n, N), chosen)
        self.rewards, self.rewarded = self.rewards + passed.rewards, self.rewarded + N

        norm, factor = optim.clip_factor(self.grads.flat, self.recipe.clip)
        update, _ = optim.OPTIMISERS[self.recipe.optimiser]
        update(self.params.flat, self.grads.flat, self.memory, self.learning_rates * self._schedule(self.step), factor)
        if self.average is not None:
            # the first steps use a faster decay, so that the average forgets the random start
            keep = min(self.recipe.averaging, (1 + self.step) / (10 + self.step))
            optim.average(self.average, self.params.flat, keep)
        self.baseline = passed.baseline
        return passed, norm, N

    def _cross_entropy_passes(self, chosen, mine):
        """Draw all random numbers for the captions `chosen` (N,) -> passes(rows, grads, dloss), as in Gradient.compute, for
        the slice `mine` of them; its result is told, 0, 0"""
        recipe, model, rng, captioner = self.recipe, self.model, self.rng, CAPTIONERS[self.model.captioner]
        captions, mask = pad([self.captions[i][1] for i in chosen])
        N, T, L = len(chosen), mask.shape[1], prod(model.grid)
        photos = self.photos.batch(np.array([self.captions[i][0] for i in chosen]), rng, mine)
        noise = of_captions(captioner.draw_noise(model.config, T, N, L, rng), mine, N)
        coins = draws = own_noise = None
        if recipe.scheduled_sampling:
            coins, draws = rng.random((2, N, T))[:, mine]
            own_noise = captioner.decoding_noise(model.config, N, L, T, rng)
            own_noise = own_noise if own_noise is None else own_noise[mine]
        true, mask = captions[mine], mask[mine].astype(self.params.flat.dtype)
        photos, captions, mask_there, own_noise, *noise_there = self.upload(photos, true, mask, own_noise, *noise)
        noise = type(noise)(*noise_there)._replace(baseline=self.baseline)
        chance, n = recipe.scheduled_sampling * self.step / self.steps, len(true)

        def passes(rows, grads, dloss):
            annotations, encoder_cache = model.encode(photos[rows])
            given = None
            if recipe.scheduled_sampling:
                drawn = scheduled_words(
                    captioner, model.params.part("decoder"), model.config, annotations, true[rows], chance, coins[rows],
                    draws[rows], None if own_noise is None else own_noise[rows],
                )  # fmt: skip
                given = to_device(drawn, xp_of(annotations))
            # cache is a list, so that pop() in _backward lets the captioner free the cache
            _, *cache = model.loss(
                annotations, captions[rows], mask_there[rows], of_captions(noise, rows, n), given, recipe.label_smoothing
            )
            told = cache[0].told
            self._backward(cache, encoder_cache, grads, dloss)
            return told, 0, 0

        return passes

    def _self_critical_passes(self, chosen, mine):
        """Draw all random numbers for the photos `chosen` (N,) -> passes(rows, grads, dloss), as in Gradient.compute, for
        the slice `mine` of them: draws captions of the photos; its result is told, words, rewards, as in Passed"""
        model, captioner, config = self.model, CAPTIONERS[self.model.captioner], policy(self.model.config)
        N, S, steps, recipe = len(chosen), self.recipe.samples, self.longest, self.recipe
        photos, owners = self.upload(self.photos.batch(chosen, self.rng, mine)), chosen[mine]
        noise = captioner.decoding_noise(config, N * S, prod(model.grid), steps, self.rng)
        uniform, noise = (
            None if x is None else x.reshape(N, S, *x.shape[1:])[mine]
            for x in (self.rng.random((N * S, steps)), noise)
        )
        decoder = model.params.part("decoder")

        def passes(rows, grads, dloss):
            annotations, encoder_cache = model.encode(*(x[rows] for x in photos))
            numbers = (None if x is None else x[rows].reshape(-1, *x.shape[2:]) for x in (uniform, noise))
            batch, drawn, rewards, words = draw_captions(
                captioner, decoder, config, annotations, *numbers, lambda n, ids: self.reward(owners[rows][n], ids),
                recipe.baseline, recipe.temperature,
            )  # fmt: skip
            _, *cache = captioner.forward(decoder, config, batch, drawn)
            told = cache[0].told._replace(baseline=self.baseline)
            self._backward(cache, encoder_cache, grads, dloss, S)
            return told, words / S, float(rewards.mean(axis=1).sum())

        return passes

    def _backward(self, cache, encoder_cache, grads, dloss, samples=1):
        """Both backward passes, from the cache in the list `cache`, of `samples` captions for each photo."""
        model = self.model
        captioner = CAPTIONERS[model.captioner]
        dannotations = captioner.backward(cache.pop(), grads.part("decoder"), model.frozen, dloss)
        if model.frozen:
            return
        if samples > 1:
            dannotations = dannotations.reshape(-1, samples, *dannotations.shape[1:]).sum(axis=1)
        model.encode_backward(dannotations, encoder_cache, grads.part("encoder"))

    def _sum(self, done, chosen):
        """Sum what the shares of all ranks have found: [(dloss, (told, words, rewards))] -> Passed

        With several ranks it also sums the gradient, in the same Allreduce.
        """
        weights, means = CAPTIONERS[self.model.captioner].weights, self.summed[self.params.flat.size :]
        means[...] = 0
        words = rewards = 0
        for dloss, (told, said, rewarded) in done:
            if dloss:
                means[0] += dloss * told.nll
                words, rewards = words + said, rewards + rewarded
                if (weight := weights(told).get("baseline")) is not None:
                    means[1] += weight * told.baseline
                    means[2] += weight
        if self.ranks.size > 1:
            if self.reward:
                means[3], means[4] = words, rewards
            self.ranks.sum(self.summed)
            if self.reward:
                words, rewards = map(float, to_host(means[3:]))
        if not self.reward:
            words = sum(len(self.captions[i][1]) - 1 for i in chosen)
        _, (told, *_) = done[0]
        baseline = told.baseline if weights(told).get("baseline") is None else means[1] / means[2]
        return Passed(means[0].copy(), baseline, words, rewards, [told for dloss, (told, *_) in done if dloss])

    def _diagnostics(self, tolds):
        """{name: mean over the captions of the minibatch}, on rank 0."""
        captioner = CAPTIONERS[self.model.captioner]
        mine = []
        for told in tolds:
            weights = captioner.weights(told)
            found = captioner.diagnostics(told)
            mine.append({name: (float(to_host(x)), float(to_host(weights[name]))) for name, x in found.items()})
        parts = list(chain(*self.ranks.gather(mine)))

        def mean(name):
            total = sum(part[name][1] for part in parts)
            return sum(weight / total * x for x, weight in (part[name] for part in parts))

        return {name: round(mean(name), 6) for name in (parts[0] if parts else ())}

    def _learning_rates(self):
        """One number, or (P,) if layers of a pretrained encoder are fine-tuned with their own rate."""
        recipe, flat, model = self.recipe, self.params.flat, self.model
        if model.frozen or not hasattr(ENCODERS[model.encoder], "load"):
            return recipe.learning_rate
        rates = self.params.on(xp_of(flat).full_like(flat, recipe.learning_rate))
        rates.part("encoder").flat[...] = recipe.encoder_learning_rate
        return rates.flat

    def _schedule(self, step):
        """The factor of the learning rates at a step, from 0 to 1."""
        rise = min(1.0, (step + 1) / max(1, self.recipe.warmup))
        fall = 0.5 * (1 + np.cos(np.pi * step / self.steps)) if self.recipe.schedule == "cosine" else 1.0
        return float(rise * fall)

    def _draw_order(self, rng):
        if self.reward:
            photos = rng.permutation(len(self.reward.references))
            return np.split(photos, range(self.recipe.batch_size, len(photos), self.recipe.batch_size))
        return batches_of_one_length([len(ids) for _, ids in self.captions], self.recipe.batch_size, rng)

    def _validate(self):
        """Score the (averaged) model on the validation split; save it as best.npz if its score is the best so far.

        -> a line to print, the best so far (see _compare), the number of validations since
        """
        with self._averaged():
            scores, captions = evaluate(self.model, self.val, self.recipe.beam, self.val_features)
            scores["nll"] = nats_per_word(self.model, self.val, self.val_features)
            self.watch.validated(captions, scores["nll"], len(self.model.vocabulary))
            now, better, decided = self._compare(scores, captions)
            self.bad = 0 if better else self.bad + 1
            if better:
                self.best = now
                save(self.out / "best.npz", self.model.on(np), step=self.step, val=scores, recipe=vars(self.recipe))
        self._log("val", **scores, split="val", beam=self.recipe.beam, tokeniser="coco-caption rule")
        shown = {name: scores[name] for name in SHOWN if name in scores}
        line = f"step {self.step}, val, beam {self.recipe.beam}: " + " ".join(f"{k} {v:.3f}" for k, v in shown.items())
        return f"{line}; {'best so far' if better else 'not better'} {decided}", self.best, self.bad

    def _compare(self, scores, captions):
        """Compare this epoch with the best before -> (score, nll) of this epoch, whether it is better, what decided

        Epochs are in the order of the recipe's `select`; nll decides between epochs that this score cannot tell apart. The
        score is 0 where it says nothing: with few photos, or if no 4-gram matched.
        """
        select, why = self.recipe.select, None
        if select != "nll":
            why = cannot_tell(select, scores, self.val, captions)
        now = 0.0 if why or select == "nll" else scores[select], scores["nll"]
        score, nll = self.best or (0.0, float("inf"))
        if now[0] != score:
            return now, now[0] > score, f"by {select}"
        reason = "" if select == "nll" else f" ({why or f'the same {select}'})"
        return now, self.best is None or now[1] < nll - ROUNDING, f"by nll{reason}"

    @property
    def chosen_by(self):
        """The name of the score by which the best epoch was chosen, and its value there."""
        score, nll = self.best
        return (self.recipe.select, score) if score else ("nll", nll)

    @contextmanager
    def _averaged(self):
        """Context manager: the model uses the averaged parameters inside the block."""
        if self.average is None:
            yield
            return
        own = self.params.flat.copy()
        self.params.flat[...] = self.average
        try:
            yield
        finally:
            self.params.flat[...] = own

    def save(self):
        """Write last.npz, with everything that the next step depends on."""
        arrays = {f"optimiser/{name}": to_host(x) for name, x in self.memory.items() if name != "step"}
        if self.average is not None:
            arrays["average"] = to_host(self.average)
        arrays["order"] = np.concatenate(self.order) if self.order else np.zeros(0, np.int64)
        header = {
            "step": self.step, "optimiser_step": self.memory["step"], "rng": self.rng.bit_generator.state,
            "order_lengths": [len(batch) for batch in self.order], "best": self.best, "bad": self.bad,
            "nats": float(to_host(self.nats)), "words": self.words, "rewards": self.rewards, "rewarded": self.rewarded,
            "baseline": float(to_host(self.baseline)),
            "recipe": vars(self.recipe), "data": self.data, "encoder weights": self.weights, "init": self.init,
        }  # fmt: skip
        training = {"header": header, "arrays": arrays}
        save(self.out / "last.npz", self.model.on(np), training, step=self.step, recipe=vars(self.recipe))

    def resume(self):
        """Continue from last.npz; raises InputError if it is from another training, or damaged."""
        with refusing(f"{self.out / 'last.npz'} does not have a complete training", "start again in a new folder"):
            self._restore()

    def _restore(self):
        model, training, _ = load_training(self.out / "last.npz")
        if training is None:
            raise InputError(f"{self.out / 'last.npz'} has no training to resume; give the folder that a training wrote")
        header, arrays = training["header"], training["arrays"]
        other = sorted(header["recipe"].keys() ^ vars(self.recipe).keys())
        if other:
            raise InputError(
                f"{self.out / 'last.npz'} is from a version of satnp with other settings ({', '.join(other)}); continue it "
                "with that version, or start from its best.npz with --init in a new --out"
            )
        said = differences(*self._options(model, header))
        if said:
            raise InputError(
                f"{self.out / 'last.npz'} began with other options: {said}; leave these as they were, or start from its "
                "best.npz with --init in a new --out"
            )
        xp = xp_of(self.params.flat)
        self.model.params.flat[...] = to_device(model.params.flat, xp)
        for name in self.memory:
            if name != "step":
                self.memory[name][...] = to_device(arrays[f"optimiser/{name}"], xp)
        self.memory["step"] = header["optimiser_step"]
        if self.average is not None:
            self.average[...] = to_device(arrays["average"], xp)
        self.order = np.split(arrays["order"], np.cumsum(header["order_lengths"])[:-1]) if len(arrays["order"]) else []
        self.step, best, self.bad = header["step"], header["best"], header["bad"]
        if isinstance(best, float):  # of an older satnp, which kept the chosen score alone
            best = [0.0, best] if self.recipe.select == "nll" else [best, float("inf")]
        if best is not None:
            score, nll = map(float, best)
            self.best = score, nll
        self.nats, self.words = header["nats"], header["words"]
        self.rewards, self.rewarded = header["rewards"], header["rewarded"]
        self.baseline = to_device(np.array(header["baseline"], self.params.flat.dtype), xp)
        self.rng.bit_generator.state = header["rng"]

    def _options(self, model, header):
        """What last.npz, with its Model and header, began with, and what this training has: two dicts for `differences`."""
        began, now = (
            {"recipe": recipe, **of.header(), "vocabulary": _named_vocabulary(of.vocabulary)}
            for of, recipe in ((model, header["recipe"]), (self.model, vars(self.recipe)))
        )
        # an older satnp wrote less about the data, and nothing about --init
        began["data"] = header["data"] if "data" in header else {"captions": header["captions"]}
        now["data"] = {name: self.data[name] for name in began["data"]}
        kept = fingerprint(model) if model.keeps_features else self.weights
        began["encoder weights"], now["encoder weights"] = header.get("encoder weights", kept), self.weights
        if self.init is not None:  # it may be left out, because the parameters are in last.npz
            began["init"], now["init"] = header.get("init", self.init), self.init
        elif not self.model.keeps_features and header.get("init"):
            now["encoder weights"] = began["encoder weights"]
        return began, now

    def _log(self, kind, **values):
        record = {"kind": kind, "step": self.step, "epoch": round(self.step / self.steps_per_epoch, 4), **values}
        with open(self.out / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self.records.append(record)
        if kind == "val" or not self.page_written or perf_counter() - self.page_written > RELOAD:
            self._write_page("running")

    def _cut_log(self):
        """Remove the records of later steps from metrics.jsonl, because those steps will be repeated."""
        path = self.out / "metrics.jsonl"
        self.records = [record for record in read_log(path) if record["step"] <= self.step]
        with replacing(path) as temporary:
            temporary.write_text("".join(json.dumps(record) + "\n" for record in self.records), encoding="utf-8")

    @contextmanager
    def _page(self):
        """Context manager: at its end, progress.html says how the training ended."""
        state = "interrupted"
        try:
            yield
            if self.step == self.steps or self.stopped:
                state = "finished"
        finally:
            if self.page_written:
                self._write_page(state)

    def _write_page(self, state):
        """Write progress.html; where that fails, the training goes on and says so."""
        best = self.best and next((x["step"] for x in self.records if x.get("nll") == self.best[1]), None)
        path, error = self.out / "progress.html", None
        try:
            write_progress(path, self.records, str(self.out), self.step, self.steps, state, best)
        except (OSError, InputError) as failed:
            error = failed
        self.watch.page(path, error)
        self.page_written = perf_counter()


def _named_vocabulary(vocabulary):
    """A short text that tells vocabularies apart."""
    return f"{len(vocabulary)} words ({digest(vocabulary.words)[:8]})"


BAR = "{percentage:3.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}]{postfix}"
STATISTICS = 5  # in _sum
ROUNDING = 1e-6  # nats a word; a smaller difference between two validations says nothing
SHOWN = ("nll", "Bleu_4", "CIDEr", "true_captions", "pointing_accuracy")


def read_log(path):
    """Read the records of a metrics.jsonl; a last line that a killed process left incomplete is dropped.

    Raises: InputError for any other line that is not a record: a kind, a step, and values that are text or a number.
    """
    records, path = [], Path(path)
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if there(path) else []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        match record:
            case {"kind": str(), "step": int()} if all(map(_loggable, record.values())):
                records.append(record)
            case _ if number < len(lines):
                raise InputError(f"line {number} of {path} is not a record of a training; fix or remove that line")
    return records


def _loggable(value):
    """Return whether a value of a record is text, None or a number that fits a float."""
    return value is None or type(value) in (str, float) or type(value) is int and abs(value) < 2**63


@contextmanager
def _interruptible(alone=True):
    """Context manager: yield a list that the first Ctrl-C fills, so that the step is completed; a second one stops at once.

    With several ranks, mpiexec handles a second Ctrl-C.
    """
    signals = []

    def note(number, frame):
        if signals and alone:
            raise KeyboardInterrupt
        signals.append(number)

    try:
        before = signal.signal(signal.SIGINT, note)
    except ValueError:  # only the main thread receives Ctrl-C
        yield signals
        return
    try:
        yield signals
    finally:
        signal.signal(signal.SIGINT, before)
