"""The training loop of the early systems: Adam, a rate that rises and falls, and the best of several validations."""

from math import cos, pi

import numpy as np

from satnp.arrays import optim
from satnp.arrays.backend import to_host

WARMUP = 100  # steps in which the rate rises
CLIP = 2.0    # largest norm of the whole gradient


def minibatches(rows, size, rng):
    """Yield minibatches of `rows` (an array, or their number), all rows in a new order again and again."""
    while True:
        order = rng.permutation(rows)
        yield from np.split(order, range(size, len(order), size))


def fit_parameters(params, draw, work, steps, rate, rng, validate=None, every=0, what="steps", score="score"):
    """Lower a loss by Adam -> [(step, score)], one for each validation; `params` end as they were at the best of them.

    draw(rng) -> a minibatch; work(minibatch, grads) -> its loss, and adds the gradient to `grads`. validate() -> a score, of
    which larger is better, is called after every `every` steps and after the last one, and printed as `score` of `what`.
    """
    from tqdm import tqdm  # a command that only lists early systems does not wait for it

    grads, memory, best, found = params.zeros_like(), optim.new_state("adam", params.flat), None, []
    with tqdm(total=steps, ncols=79, unit="batch", desc=what) as bar:
        for step in range(steps):
            grads.flat[...] = 0
            loss = work(draw(rng), grads)
            _, factor = optim.clip_factor(grads.flat, CLIP)
            lr = rate * min(1.0, (step + 1) / WARMUP) * 0.5 * (1 + cos(pi * step / steps))
            optim.adam(params.flat, grads.flat, memory, lr, factor)
            bar.update()
            last = step + 1 == steps
            if last or (step + 1) % 20 == 0:
                bar.set_postfix_str(f"loss {float(to_host(loss)):.4f}")
            if validate and (last or every and (step + 1) % every == 0):
                found.append((step + 1, validate()))
                bar.write(f"{what}, step {step + 1}: {score} {found[-1][1]:.4f}")
                if best is None or found[-1][1] > best[0]:
                    best = found[-1][1], params.flat.copy()
    if best is not None:
        params.flat[...] = best[1]
    return found
