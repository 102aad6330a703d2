"""The detector of attributes: which words belong to a photo, by its annotations and the parameters W_d (D, K), b_d (K,)."""

import numpy as np

from satnp.arrays.backend import to_host, xp_of
from satnp.arrays.elementwise import elementwise
from satnp.layers import affine_forward, noisy_or_forward, noisy_or_loss_backward, noisy_or_loss_forward, rows

ROUNDS = 50   # of the training
PATIENCE = 2  # rounds without a better loss before it stops
BATCH = 64    # photos at a time, which bounds the memory


def attributes_forward(p, annotations):
    """V_att = 1 - prod_j (1 - sigmoid(a_j W_d + b_d)): annotations (N, L, D) -> V_att (N, K), cache"""
    scores, affine = affine_forward(rows(annotations), p.W_d, p.b_d)
    found, noisy_or = noisy_or_forward(scores.reshape(*annotations.shape[:2], -1))
    return found, (affine, noisy_or)


def train_detector(p, annotations, y):
    """Lower noisy_or_loss of annotations (N, L, D) and y (N, K) by Rprop -> its losses on photos held out, one a round

    W_d starts at 0, and b_d such that each attribute is as probable as it is frequent. A quarter of the photos is held out;
    the round with the smallest loss on it is kept, because the detector soon learns photos by heart. Rprop gives each weight
    a step of its own, so that the scale of the annotations does not matter. Source: Riedmiller and Braun 1993.
    """
    N, L, _ = annotations.shape
    held, seen = (slice(0, N // 4), slice(N // 4, N)) if N >= 4 else (slice(0, N),) * 2
    xp, losses = xp_of(y), []
    p.W_d[...] = 0
    p.b_d[...] = xp.log(xp.expm1(-xp.log(1 - (y[seen].sum(axis=0) + 0.5) / (len(y[seen]) + 1)) / L))
    memory = [(x, xp.zeros_like(x), xp.full_like(x, 0.01)) for x in (p.W_d, p.b_d)]
    best = p.W_d.copy(), p.b_d.copy()
    while len(losses) < ROUNDS and len(losses) - np.argmin([*losses, np.inf]) <= PATIENCE:
        gradients = _detector_pass(p, annotations[seen], y[seen])[1]
        for (x, before, step), g in zip(memory, gradients, strict=True):
            _rprop(x, g, before, step, out=(x, before, step))
        losses.append(float(to_host(_detector_pass(p, annotations[held], y[held])[0])))
        if losses[-1] == min(losses):
            best = p.W_d.copy(), p.b_d.copy()
    p.W_d[...], p.b_d[...] = best
    return losses


def _detector_pass(p, annotations, y):
    """noisy_or_loss of annotations (N, L, D) and y (N, K), BATCH photos at a time -> loss, (dW_d, db_d)"""
    loss, dW, db = 0, 0, 0
    for part in np.split(np.arange(len(y)), range(BATCH, len(y), BATCH)):
        part, share = slice(part[0], part[-1] + 1), len(part) / len(y)
        scores, affine = affine_forward(rows(annotations[part]), p.W_d, p.b_d)
        of_part, cache = noisy_or_loss_forward(scores.reshape(-1, annotations.shape[1], y.shape[1]), y[part])
        dscores = rows(noisy_or_loss_backward(share, cache))
        loss, dW, db = loss + share * of_part, dW + affine.x.T @ dscores, db + dscores.sum(axis=0)
    return loss, (dW, db)


@elementwise
def _rprop(x, g, before, step):
    xp = xp_of(x)
    agree = g * before
    step = step * xp.where(agree > 0, 1.2, xp.where(agree < 0, 0.5, 1))
    return x - step * xp.where(g > 0, 1, xp.where(g < 0, -1, 0)), g, step
