"""SCA-CNN (Chen et al. 2017): attention to the channels and to the locations of a feature map X (N, L, D).

    channels     e_d = w_c . tanh(v_d W_c + b_c + h_{t-1} W_hc) + c_c,   v = mean_i X_i
                 beta = softmax over the D channels of e,   X'_i = beta * X_i
    locations    e_i = w_s . tanh(X_i W_s + b_s + h_{t-1} W_hs) + c_s
                 alpha = softmax over the L locations of e,   X'_i = alpha_i X_i
    order        C-S: channels, then the locations of what they give; S-C: locations first
    two layers   ReLU(conv(X') + b_F), from the map that both attentions gave, has two attentions of its own
    LSTM         of E[y_{t-1}] W_x + h_{t-1} W_h + z_t W_z + b,   z_t = sum_i X'_i of the last layer
    p(y_t)       softmax(h_t W_p + b_p)

The keys of the first attention depend only on the photo. All other keys, and the convolution, are inside the time loop,
because their maps depend on h_{t-1}; in decoding each caption of a photo has a map of its own. c_c and c_s have no
gradient: a softmax does not change with a constant.

`scaled`, as in the public code: the weights are multiplied by their number, so that their mean is 1, and z_t is the mean
of X'_ti. (A softmax over 512 channels makes the map 512 times as small.) `alpha` of the frame is the last layer's.

Differs: `scaled` is the default; the second layer's convolution starts from random weights; the public code divides z_t by
its length.
"""

from dataclasses import dataclass
from typing import NamedTuple

from satnp.arrays.backend import xp_of
from satnp.captioners.config import Validated, check_choices
from satnp.captioners.locations import Locations, locations, scores_forward
from satnp.captioners.recurrent import Recurrent
from satnp.layers import (
    additive_scores_backward,
    affine_backward,
    affine_forward,
    conv2d_relu_backward,
    conv2d_relu_forward,
    lstm_cell_backward,
    lstm_cell_forward,
    mean_annotation_backward,
    mean_annotation_forward,
    softmax_backward,
    softmax_forward,
)


@dataclass(frozen=True)
class Config(Validated):
    V: int
    D: int = 512
    M: int = 512
    H: int = 512
    A: int = 512
    rows: int = 14         # of the feature map, which has L / rows columns; given by the encoder
    order: str = "C-S"
    layers: int = 1        # 1 or 2
    kernel: int = 1        # of the convolution between two layers: 1 or 3, which costs nine times as much
    scaled: bool = True    # not in the paper; tests/benchmarks/results/family_scenes.md compares both
    penalty: float = 0.0   # lambda of Xu et al. 2015, eq. 14; not in the paper
    dropout: float = 0.5   # of E[y_{t-1}] and of h_t on its way to the vocabulary layer

    def __post_init__(self):
        super().__post_init__()
        check_choices(self, CHOICES)


CHOICES = {"order": ("C-S", "S-C"), "layers": (1, 2), "kernel": (1, 3)}
CHANNELS, LOCATIONS = ("c", "c2"), ("s", "s2")  # the names of the attentions, layer by layer
CHECKS = {
    "": Config(V=9, D=4, M=3, H=5, A=7, rows=3, scaled=False, penalty=0.7, dropout=0.4),
    "S-C": Config(V=8, D=5, M=4, H=3, A=2, rows=3, order="S-C", scaled=False, penalty=0.7, dropout=0.0),
    "scaled": Config(V=8, D=5, M=4, H=3, A=2, rows=3, penalty=0.7, dropout=0.4),
    "two layers": Config(V=9, D=4, M=3, H=5, A=7, rows=3, layers=2, penalty=0.7, dropout=0.4),
    "two layers S-C": Config(V=8, D=5, M=4, H=3, A=2, rows=3, order="S-C", layers=2, kernel=3, dropout=0.0),
}


class Photo(NamedTuple):
    keys: Locations  # of the first attention; "locations" are the channels in the order C-S
    annotations: object


class Attention(NamedTuple):
    X: object        # (N, L, D), the map that the weights multiply
    times: object    # (N, 1, D) or (N, L, 1), the weights
    keys: object     # cache of _keys_forward, None if photo_forward has it
    scores: object
    softmax: object


class Step(NamedTuple):
    caches: dict     # {name of a part of the step: its cache}
    hz: object       # (N, H + D), h_{t-1} and z_t
    cell: object


def parts(config):
    """The names of what a step does to the map: c attends to channels, s to locations, F is the convolution."""
    first, second = ("c", "s") if config.order == "C-S" else ("s", "c")
    return (first, second, "F", f"{first}2", f"{second}2")[: 2 if config.layers == 1 else 5]


def shapes(config):
    V, D, M, H, A, K = config.V, config.D, config.M, config.H, config.A, config.kernel
    found = {"E": (V, M), "F": (K * K * D, D), "b_F": (D,)} if config.layers == 2 else {"E": (V, M)}
    for name in parts(config):
        if name != "F":
            W = 1 if name in CHANNELS else D, A
            found |= {f"W_{name}": W, f"b_{name}": (A,), f"W_h{name}": (H, A), f"w_{name}": (A,), f"c_{name}": (1,)}
    lstm = {"W_x": (M, 4 * H), "W_h": (H, 4 * H), "W_z": (D, 4 * H), "b": (4 * H,)}
    return found | lstm | {"W_p": (H, V), "b_p": (V,)}


def photo_forward(p, config, annotations):
    """annotations (N, L, D) -> Photo, state (h, c) of zeros (N, H), cache"""
    keys, cache = _keys_forward(p, parts(config)[0], annotations)
    zeros = xp_of(annotations).zeros((len(annotations), config.H), dtype=annotations.dtype)
    return Photo(keys, annotations), (zeros, zeros), cache


def photo_backward(p, config, dstate, deferred, cache, frozen):
    """Backward of photo_forward, from the sums over all steps -> dannotations (N, L, D), None if frozen"""
    first = parts(config)[0]
    dX = _keys_backward(first, deferred.keys(f"w_{first}", f"c_{first}"), cache, deferred.g)
    return None if frozen else deferred.sums["X"] + dX


def cell_forward(p, config, photo, word, state):
    """word (N, 4H), state (h, c), each (N, H) -> out (h,), state, alpha (N, L), cache"""
    (h, c), X, keys, caches = state, photo.annotations, photo.keys, {}
    for name in parts(config):
        if name == "F":
            X, caches[name] = _convolution_forward(p, config, X)
        else:
            X, caches[name] = _attention_forward(p, config, name, X, h, keys)
            keys = None
    z = X.mean(axis=1) if config.scaled else X.sum(axis=1)
    hz = xp_of(h).concatenate([h, z], axis=1)
    (h, c), cell = lstm_cell_forward(hz @ p.stacked("W_h", "W_z"), c, word)
    return (h,), (h, c), caches[LOCATIONS[config.layers - 1]].softmax.alpha, Step(caches, hz, cell)


def cell_backward(p, config, dout, dstate, dalpha, step, deferred):
    """dout (dh (N, H),), dstate (dh, dc), each (N, H), dalpha (N, L) or None -> dword (N, 4H), dstate"""
    (dh_out,), (dh, dc), h = dout, dstate, step.hz[:, : config.H]
    dgates, dc = lstm_cell_backward((dh + dh_out, dc), step.cell)
    dhz = deferred.product(dgates, step.hz, "W_h", "W_z")
    dh, dX = dhz[:, : config.H], dhz[:, None, config.H :]  # dX is the same for all locations
    if config.scaled:
        dX = dX / step.caches["s"].X.shape[1]
    for name in reversed(parts(config)):
        if name == "F":
            dX = _convolution_backward(dX, step.caches[name], deferred.g)
        else:
            dweights = dalpha if name == LOCATIONS[config.layers - 1] else None
            dX, dquery = _attention_backward(config, name, dX, dweights, step.caches[name], deferred)
            dh = dh + deferred.product(dquery, h, f"W_h{name}")
    deferred.sum(X=dX)
    return dgates, (dh, dc)


def _attention_forward(p, config, name, X, h, keys=None):
    """X (N, L, D), h (N, H), Locations of the photo or None -> X times the weights (N, L, D), cache"""
    cache = None
    if keys is None:
        keys, cache = _keys_forward(p, name, X)
    scores, scores_cache = scores_forward(keys, h @ p[f"W_h{name}"], p[f"w_{name}"], p[f"c_{name}"])
    weights, softmax = softmax_forward(scores)
    times = weights * weights.shape[1] if config.scaled else weights
    times = times[:, None] if name in CHANNELS else times[:, :, None]
    return X * times, Attention(X, times, cache, scores_cache, softmax)


def _attention_backward(config, name, dout, dweights, cache, deferred):
    """dout (N, L or 1, D), dweights of the penalty or None -> dX (N, L, D), dquery (N, A)"""
    total = (dout * cache.X).sum(axis=1 if name in CHANNELS else 2)
    total = total * total.shape[1] if config.scaled else total
    dscores = softmax_backward(total if dweights is None else total + dweights, cache.softmax)
    dX = dout * cache.times
    if cache.keys is None:
        return dX, deferred.scores(dscores, cache.scores)
    dkeys, dquery, dw, dc = additive_scores_backward(dscores, cache.scores)
    deferred.g.add(**{f"w_{name}": dw, f"c_{name}": dc})
    return dX + _keys_backward(name, dkeys, cache.keys, deferred.g), dquery


def _keys_forward(p, name, X):
    """X (N, L, D) -> Locations with keys v_d W_c + b_c (N, D, A) or X_i W_s + b_s (N, L, A), cache"""
    N, D, mean = len(X), X.shape[2], None
    if name in CHANNELS:
        X, mean = mean_annotation_forward(X)
    keys, affine = affine_forward(X.reshape(-1, 1 if name in CHANNELS else D), p[f"W_{name}"], p[f"b_{name}"])
    return locations(keys.reshape(N, -1, keys.shape[1]), None), (affine, mean)


def _keys_backward(name, dkeys, cache, g):
    """dkeys (N, D, A) or (N, L, A) -> dX (N, L, D); adds the gradients of W and b to `g`"""
    (affine, mean), (N, count, A) = cache, dkeys.shape
    dx, dW, db = affine_backward(dkeys.reshape(-1, A), affine)
    g.add(**{f"W_{name}": dW, f"b_{name}": db})
    return mean_annotation_backward(dx.reshape(N, count), mean) if name in CHANNELS else dx.reshape(N, count, -1)


def _convolution_forward(p, config, X):
    """ReLU(conv(X) + b_F), the map keeps its size: X (N, L, D) -> (N, L, D), cache"""
    N, D, K = len(X), config.D, config.kernel
    out, cache = conv2d_relu_forward(X.reshape(N, config.rows, -1, D), p.F.reshape(K, K, D, D), p.b_F, 1, K // 2)
    return out.reshape(X.shape), cache


def _convolution_backward(dout, cache, g):
    """dout (N, L, D) -> dX (N, L, D); adds the gradients of F and b_F to `g`"""
    dX, dF, db_F = conv2d_relu_backward(dout.reshape(cache.conv.x.shape), cache)
    g.add(F=dF.reshape(g.F.shape), b_F=db_F)
    return dX.reshape(dout.shape)


def channels(step):
    """A cache of cell_forward -> beta (N, D) of the last layer, and the map (N, L, D) whose channels it weights"""
    attention = step.caches.get("c2", step.caches["c"])
    return attention.softmax.alpha, attention.X


captioner = Recurrent(__name__)
