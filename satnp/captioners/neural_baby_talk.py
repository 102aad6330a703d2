"""Neural Baby Talk (Lu et al. 2018): at each word, a pointer decides between the vocabulary and a region, whose detected
class gives the word.

    v_i = ReLU(a_i W_a + b_a)                              region i: its features, its box, its class probabilities P_i
    h1_t = LSTM1([h2_{t-1} ; v ; E[y_{t-1}]]),    v = mean_i v_i           v enters it by W_m
    alpha_t = softmax over i of w . tanh(v_i W_v + h1_t W_s),    z_t = sum_i alpha_ti v_i
    h2_t, c2_t = LSTM2([z_t ; h1_t])

    s_t = sigmoid([z_t ; h1_t ; h2_{t-1}] U_s + b_s) * tanh(c2_t)                   the sentinel
    e_ti = u . tanh(v_i W_v + h2_t W_q),    e_ts = u . tanh(s_t W_t + h2_t W_q)
    [p(i) ; p(sentinel)] = softmax over the regions and the sentinel of [e_t ; e_ts]            the pointer
    q(y) = softmax(h2_t W_p + b_p)

    x_i = ReLU(v_i F_v + h2_t F_h + b_f)
    p(form | class, i) = softmax over the forms of the class of (x_i W_g + b_g)_g, and + x_i W_n + b_n for a plural form

    p(y_t) = p(sentinel) q(y_t)                                                     a word of the text
    p(y_t) = sum_i p(i) P_i(class of y_t) p(form y_t | class, i)                    a visual word

If a class has a singular and a plural of each fine-grained word g, p(form | class, i) is the paper's
p(plural | i) p(g | i).

The language model is that of Top-Down, and U_s, b_s are the last columns of LSTM2's matrices and bias, as in adaptive.py.
The attention alpha_t feeds LSTM2. What figures show is the pointer, whose weights of the regions sum to 1 - p(sentinel).
layers/slots.py has p(y_t).

Regions come from a file, which also names their classes; the last C features of a region are its class probabilities P_i.
`visual_words` finds the words of each class in the vocabulary.

The loss: the paper minimises -log of the mean of p(i) over the m regions that have the class of the word, times p(plural)
and p(fine-grained word). If each region has one class, the sum over all regions is m times this mean: the losses differ by
log m, and their gradients are the same. The sum is a probability, so we minimise -log of the sum, and decoding maximises the
same p(y_t). As in the paper, a word is visual only in a photo with a region of its class, and elsewhere a word of the text:
q leaves out the words whose class is the most probable one of a region, so the probabilities of all words sum to 1. Label
smoothing, temperatures and self-critical training work as for every captioner.

Differs: the paper also attends to a grid, and embeds classes and fine-grained words with GloVe. Here a form that the
vocabulary lacks has probability 0, and the others of its class are normalised without it. The attention has a bias c_a.
"""

from dataclasses import dataclass
from typing import NamedTuple

from satnp.arrays.backend import xp_of
from satnp.captioners.attributes import IRREGULAR, root
from satnp.captioners.config import Validated
from satnp.captioners.locations import Locations, attend_forward, locations, present_regions, scores_forward
from satnp.captioners.recurrent import Recurrent
from satnp.errors import InputError
from satnp.layers import (
    additive_scores_backward,
    additive_scores_forward,
    affine_backward,
    affine_forward,
    lstm_cell_backward,
    lstm_cell_forward,
    masked_mean_backward,
    masked_mean_forward,
    relu_backward,
    relu_forward,
    rows,
    sigmoid_backward,
    sigmoid_forward,
    slots_backward,
    slots_forward,
    softmax,
)

UNKNOWN = 3  # <unk>, which names the classes without a word; see contract.Corpus


@dataclass(frozen=True)
class Config(Validated):
    V: int
    D: int = 512          # features of a region, with its class probabilities
    M: int = 512
    H: int = 512
    A: int = 512
    classes: tuple = ()   # the names of the C classes in the file of regions
    words: tuple = ()     # for each class its visual words, as pairs (singular, plural); -1 for none
    regions: bool = True
    dropout: float = 0.5  # of E[y_{t-1}], and of h2_t in q and x_i

    sentinel = True  # alpha sums to 1 - beta, see contract.py

    def __post_init__(self):
        super().__post_init__()
        if not self.regions:
            raise InputError("regions is False, but this captioner always reads regions; leave it out")
        words = tuple(tuple(map(tuple, pairs)) for pairs in self.words)  # a checkpoint has lists
        object.__setattr__(self, "words", words)
        object.__setattr__(self, "classes", tuple(self.classes))
        ids = [y for pairs in words for pair in pairs for y in pair if y != -1]
        if not 0 < len(words) == len(self.classes) < self.D:
            raise InputError(f"regions with {self.D} features have {len(words)} classes; give 1 to {self.D - 1}")
        if len(set(ids)) < len(ids) or not set(ids) <= set(range(UNKNOWN + 1, self.V)):
            raise InputError(f"the classes have the words {ids}; give different ids, from {UNKNOWN + 1} to {self.V - 1}")


ORTHOGONAL = "W_h1", "U_h2"
CHECKS = {
    "": Config(V=12, D=6, M=3, H=5, A=7, classes=("dog,puppy", "cat", "sky"), dropout=0.4,
               words=(((4, 5), (8, -1)), ((7, 10),), ())),
    "one word a class": Config(V=8, D=5, M=4, H=3, A=2, classes=("cat", "dog"), words=(((5, -1),), ((7, -1),)), dropout=0.0),
}  # fmt: skip


class Photo(NamedTuple):
    regions: Locations  # keys v_i W_v, vectors v_i
    gates: object       # (N, 4H), v W_m
    classes: object     # (N, k, C), P_i
    forms: object       # (N, k, A), v_i F_v + b_f


class PhotoCache(NamedTuple):
    affine: object
    relu: object
    v: object       # (N*k, H), v_i
    v_mean: object  # (N, H)
    mean: object
    forms: object


class Step(NamedTuple):
    hh: object        # (N, 2H), h1_{t-1} and h2_{t-1}
    cell1: object
    h1: object
    attend: object
    zhh: object       # (N, 3H), z_t, h1_t and h2_{t-1}
    cell2: object
    h2: object
    gate: object
    s: object         # (N, H)
    scores: object    # of the regions, by the pointer
    sentinel: object


class LogitsCache(NamedTuple):
    text: object
    relu: object
    fine: object
    plural: object
    slots: object
    h: object  # (T*N, H), h2_t


def shapes(config):
    V, D, M, H, A, G = config.V, config.D, config.M, config.H, config.A, max(1, sum(map(len, config.words)))
    return {
        "E": (V, M), "W_a": (D, H), "b_a": (H,),
        "W_x": (M, 4 * H), "W_m": (H, 4 * H), "W_h1": (H, 4 * H), "W_h2": (H, 4 * H), "b": (4 * H,),
        "W_v": (H, A), "W_s": (H, A), "w": (A,), "c_a": (1,),
        "U_z": (H, 5 * H), "U_h1": (H, 5 * H), "U_h2": (H, 5 * H), "b_2": (5 * H,),
        "W_q": (H, A), "W_t": (H, A), "u": (A,), "c_u": (1,),
        "F_v": (H, A), "F_h": (H, A), "b_f": (A,), "W_g": (A, G), "b_g": (G,), "W_n": (A, 1), "b_n": (1,),
        "W_p": (H, V), "b_p": (V,),
    }  # fmt: skip


def visual_words(classes, words):
    """The visual words of each class: names of the classes, words of a Vocabulary -> Config.words

    A class may name several fine-grained words, with commas between them: "dog, puppy". The plural form of one is a word of
    the vocabulary with the same root (attributes.py) that ends with s or is irregular. A word that two classes have belongs
    to the first.
    """
    place, of_root = {word: y for y, word in enumerate(words) if y > UNKNOWN}, {}
    for word in place:
        of_root.setdefault(root(word), []).append(word)
    found = []
    for name in classes:
        pairs = []
        for one in (x.strip().lower() for x in name.split(",")):
            plurals = [x for x in of_root.get(root(one), []) if x != one and (x.endswith("s") or x in IRREGULAR)]
            pairs.append(tuple(place.pop(x, -1) for x in (one, *plurals, "")[:2]))
        found.append(tuple(pair for pair in pairs if max(pair) >= 0))
    return tuple(found)


def photo_forward(p, config, annotations):
    """annotations (N, k, D) -> Photo, state (h1, c1, h2, c2) of zeros (N, H), cache"""
    N, k, D = annotations.shape
    present = present_regions(annotations)
    a, affine = affine_forward(annotations.reshape(N * k, D), p.W_a, p.b_a)
    v, relu = relu_forward(a)
    v_mean, mean = masked_mean_forward(v.reshape(N, k, -1), present)
    forms, of_forms = affine_forward(v, p.F_v, p.b_f)
    zeros = xp_of(v).zeros((N, config.H), dtype=v.dtype)
    photo = Photo(
        locations((v @ p.W_v).reshape(N, k, -1), v.reshape(N, k, -1), present), v_mean @ p.W_m,
        annotations[:, :, D - len(config.classes) :], forms.reshape(N, k, -1),
    )  # fmt: skip
    return photo, (zeros, zeros, zeros, zeros), PhotoCache(affine, relu, v, v_mean, mean, of_forms)


def photo_backward(p, config, dstate, deferred, cache, frozen):
    """Backward of photo_forward, from the sums over all steps -> dannotations (N, k, D), None if frozen"""
    dgates = deferred.sums["gates"]
    dkeys = rows(deferred.keys("w", "c_a") + deferred.keys("u", "c_u", "pointer"))
    dv_forms, dF_v, db_f = affine_backward(rows(deferred.sums["forms"]), cache.forms)
    dv = rows(deferred.vectors() + masked_mean_backward(dgates @ p.W_m.T, cache.mean))
    da = relu_backward(dv + dkeys @ p.W_v.T + dv_forms, cache.relu)
    dannotations, dW_a, db_a = affine_backward(da, cache.affine)
    deferred.g.add(
        W_m=cache.v_mean.T @ dgates, W_v=cache.v.T @ dkeys, F_v=dF_v, b_f=db_f, W_a=dW_a, b_a=db_a,
    )  # fmt: skip
    if frozen:
        return None
    dannotations = dannotations.reshape(len(dgates), -1, config.D)
    dannotations[:, :, config.D - len(config.classes) :] += deferred.sums["classes"]
    return dannotations


def cell_forward(p, config, photo, word, state):
    """word (N, 4H), state (h1, c1, h2, c2), each (N, H) -> out (h2, the pointer's scores (N, k+1)), state, alpha, cache"""
    (h1, c1, h2, c2), xp, H = state, xp_of(word), config.H
    hh = xp.concatenate([h1, h2], axis=1)
    (h1, c1), cell1 = lstm_cell_forward(hh @ p.stacked("W_h1", "W_h2") + photo.gates, c1, word)
    z, _, attend = attend_forward(photo.regions, h1 @ p.W_s, p.w, p.c_a)
    zhh = xp.concatenate([z, h1, h2], axis=1)
    gates = zhh @ p.stacked("U_z", "U_h1", "U_h2") + p.b_2
    (h2, c2), cell2 = lstm_cell_forward(gates[:, : 4 * H], c2)
    g, gate = sigmoid_forward(gates[:, 4 * H :])
    s, query = g * cell2.tanh_c, h2 @ p.W_q
    scores, of_regions = scores_forward(photo.regions, query, p.u, p.c_u)
    score, of_sentinel = additive_scores_forward((s @ p.W_t)[:, None], query, p.u, p.c_u)
    pointer = xp.concatenate([scores, score], axis=1)
    step = Step(hh, cell1, h1, attend, zhh, cell2, h2, gate, s, of_regions, of_sentinel)
    return (h2, pointer), (h1, c1, h2, c2), softmax(pointer)[:, :-1], step


def cell_backward(p, config, dout, dstate, dalpha, step, deferred):
    """dout (dh2 (N, H), dpointer (N, k+1)), dstate (dh1, dc1, dh2, dc2), each (N, H) -> dword (N, 4H), dstate"""
    (dh_out, dpointer), (dh1, dc1, dh2, dc2), H, xp = dout, dstate, config.H, xp_of(dout[0])
    dkey, dquery, du, dc_u = additive_scores_backward(dpointer[:, -1:], step.sentinel)
    deferred.g.add(u=du, c_u=dc_u)
    dquery = dquery + deferred.scores(dpointer[:, :-1], step.scores, "pointer")
    ds, tanh_c = deferred.product(dkey[:, 0], step.s, "W_t"), step.cell2.tanh_c
    dh2 = dh2 + dh_out + deferred.product(dquery, step.h2, "W_q")
    dgates2, dc2 = lstm_cell_backward((dh2, dc2 + ds * step.gate.out * (1 - tanh_c * tanh_c)), step.cell2)
    dgates2 = xp.concatenate([dgates2, sigmoid_backward(ds * tanh_c, step.gate)], axis=1)
    dzhh = deferred.product(dgates2, step.zhh, "U_z", "U_h1", "U_h2", bias="b_2")
    dz, dh1, dh2 = dzhh[:, :H], dh1 + dzhh[:, H : 2 * H], dzhh[:, 2 * H :]
    dquery = deferred.attend(dz, None, step.attend)
    dh1 = dh1 + deferred.product(dquery, step.h1, "W_s")
    dgates1, dc1 = lstm_cell_backward((dh1, dc1), step.cell1)
    deferred.sum(gates=dgates1)
    dhh = deferred.product(dgates1, step.hh, "W_h1", "W_h2")
    return dgates1, (dhh[:, :H], dc1, dh2 + dhh[:, H:], dc2)


def logits_forward(p, config, photo, out):
    """out (h2 (T*N, H), the pointer's scores (T*N, k+1)) -> log p of all words (T*N, V), cache"""
    (h, pointer), (N, k, A), xp = out, photo.forms.shape, xp_of(out[0])
    text, of_text = affine_forward(h, p.W_p, p.b_p)
    x, relu = relu_forward(photo.forms + (h @ p.F_h).reshape(-1, N, 1, A))  # (T, N, k, A)
    x = x.reshape(-1, A)
    fine, of_fine = affine_forward(x, p.W_g, p.b_g)
    plural, of_plural = affine_forward(x, p.W_n, p.b_n)
    classes = xp.broadcast_to(photo.classes, (len(h) // N, *photo.classes.shape)).reshape(len(h), k, -1)
    log_p, slots = slots_forward(
        text, pointer, classes, fine.reshape(len(h), k, -1), plural.reshape(-1, k), config.words, UNKNOWN
    )  # fmt: skip
    return log_p, LogitsCache(of_text, relu, of_fine, of_plural, slots, h)


def logits_backward(p, config, dlogits, deferred, cache):
    """dlogits (T*N, V) -> dout (dh2 (T*N, H), dpointer (T*N, k+1))"""
    dtext, dpointer, dclasses, dfine, dplural = slots_backward(dlogits, cache.slots)
    dh, dW_p, db_p = affine_backward(dtext, cache.text)
    dx_fine, dW_g, db_g = affine_backward(rows(dfine), cache.fine)
    dx_plural, dW_n, db_n = affine_backward(dplural.reshape(-1, 1), cache.plural)
    T, N, k, A = cache.relu.out.shape
    dx = relu_backward((dx_fine + dx_plural).reshape(T, N, k, A), cache.relu)
    dh_forms = dx.sum(axis=2).reshape(T * N, A)
    deferred.sum(forms=dx.sum(axis=0), classes=dclasses.reshape(T, N, k, -1).sum(axis=0))
    deferred.g.add(W_p=dW_p, b_p=db_p, W_g=dW_g, b_g=db_g, W_n=dW_n, b_n=db_n, F_h=cache.h.T @ dh_forms)
    return dh + dh_forms @ p.F_h.T, dpointer


def diagnostics(told):
    """{name: (T, N)}: beta_t = p(sentinel)"""
    return {"beta": 1 - told.alphas.sum(axis=2)}


captioner = Recurrent(__name__)
