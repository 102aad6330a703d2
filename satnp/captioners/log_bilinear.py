"""Log-bilinear models (Kiros et al. 2014): no recurrence. The last n words and the photo predict the next word's vector.

    r_t = sum_{i=1..n} E[y_{t-i}] C_i + b,    with b_0 in place of the words before <start>;    v = mean_i a_i
    image = "bias", MLBL-B:    q_t = r_t + v C_m + b_m                   the photo is one more word of the window
    image = "gate", MLBL-F:    q_t = (r_t U_r) * (v U_v + b_m)           the photo weights each factor
    p(y_t) = softmax(q_t W_p + b_p)

C stacks C_n, ..., C_1, the oldest word first. The state is the window, so decoding needs nothing of its own.

Differs: in the paper E is not free, but W_p^T for MLBL-B and (U_r W_p)^T for MLBL-F, and there is no b_m. As in
show_and_tell.py, `prepare` standardises v; it also adds 1 to b_m of MLBL-F, so that training starts from a language model.
"""

from dataclasses import dataclass
from typing import NamedTuple

from satnp.arrays.backend import xp_of
from satnp.captioners.config import Validated, check_choices
from satnp.captioners.initialise import standardise
from satnp.captioners.recurrent import Recurrent
from satnp.layers import mean_annotation_backward, mean_annotation_forward

ORTHOGONAL = ()  # no state is multiplied at each step
IMAGES = "bias", "gate"


@dataclass(frozen=True)
class Config(Validated):
    V: int
    D: int = 512
    M: int = 512
    n: int = 5            # words of the window
    image: str = "bias"
    dropout: float = 0.5  # of E[y_{t-1}] and of q_t

    def __post_init__(self):
        super().__post_init__()
        check_choices(self, {"image": IMAGES})


CHECKS = {
    "": Config(V=9, D=4, M=3, n=2, dropout=0.4),
    "gate": Config(V=8, D=3, M=5, n=3, image="gate", dropout=0.4),
    "bare": Config(V=7, D=5, M=4, n=6, dropout=0.0),
}


class Photo(NamedTuple):
    image: object  # (N, M), v C_m + b_m or v U_v + b_m


class PhotoCache(NamedTuple):
    mean: object
    v: object      # (N, D)


class Step(NamedTuple):
    window: object   # (N, n*M)
    factors: object  # (N, M), r_t U_r, or None
    r: object        # (N, M)
    image: object    # (N, M)


def shapes(config):
    V, D, M, n = config.V, config.D, config.M, config.n
    image = {"C_m": (D, M)} if config.image == "bias" else {"U_r": (M, M), "U_v": (D, M)}
    return {"E": (V, M), "b_0": (M,), "C": (n * M, M), "b": (M,), **image, "b_m": (M,), "W_p": (M, V), "b_p": (V,)}


def prepare(p, config, corpus):
    """Standardise v over the photos of the corpus, and let MLBL-F begin with a factor of 1 on average."""
    standardise(p.C_m if config.image == "bias" else p.U_v, p.b_m, mean_annotation_forward(corpus.annotations)[0])
    if config.image == "gate":
        p.b_m += 1


def photo_forward(p, config, annotations):
    """annotations (N, L, D) -> Photo, state (window (N, n*M),) of b_0, cache"""
    v, mean = mean_annotation_forward(annotations)
    image = v @ (p.C_m if config.image == "bias" else p.U_v) + p.b_m
    window = xp_of(v).tile(p.b_0, (len(v), config.n))
    return Photo(image), (window,), PhotoCache(mean, v)


def photo_backward(p, config, dstate, deferred, cache, frozen):
    """dstate (dwindow (N, n*M),) -> dannotations (N, L, D), None if frozen"""
    (mean, v), g = cache, deferred.g
    dimage, W = deferred.sums["image"], "C_m" if config.image == "bias" else "U_v"
    g.add(**{W: v.T @ dimage}, b_m=dimage.sum(axis=0), b_0=dstate[0].reshape(-1, config.M).sum(axis=0))
    return None if frozen else mean_annotation_backward(dimage @ p[W].T, mean)


def cell_forward(p, config, photo, word, state):
    """word (N, M), state (window (N, n*M),) -> out (q (N, M),), state, None, cache"""
    window = xp_of(word).concatenate([state[0][:, config.M :], word], axis=1)
    r = window @ p.C + p.b
    if config.image == "bias":
        return (r + photo.image,), (window,), None, Step(window, None, r, photo.image)
    factors = r @ p.U_r
    return (factors * photo.image,), (window,), None, Step(window, factors, r, photo.image)


def cell_backward(p, config, dout, dstate, dalpha, step, deferred):
    """dout (dq (N, M),), dstate (dwindow (N, n*M),) -> dword (N, M), dstate"""
    (dr,), M, xp = dout, config.M, xp_of(dout[0])
    if config.image == "bias":
        deferred.sum(image=dr)
    else:
        deferred.sum(image=dr * step.factors)
        dr = deferred.product(dr * step.image, step.r, "U_r")
    dwindow = dstate[0] + deferred.product(dr, step.window, "C", bias="b")
    before = xp.zeros_like(dwindow)
    before[:, M:] = dwindow[:, :-M]  # the oldest word of the window before is not read any more
    return dwindow[:, -M:], (before,)


captioner = Recurrent(__name__)
