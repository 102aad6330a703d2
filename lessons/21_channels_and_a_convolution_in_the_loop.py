# %% [markdown]
# # 21 Channel attention, and a convolution inside the loop
#
# - time: 75 minutes
# - cpu: 15 seconds
# - before: 03, 06, 09, 19
# - equations: Chen et al. 2017, section 3
# - about: satnp.captioners.sca_cnn._attention_backward
#
# A feature map has L locations and D channels. Attention so far gave each location a weight: where to look. SCA-CNN (Chen
# et al. 2017) also gives each channel a weight: how much each of the encoder's detectors counts. And it can do so in more
# than one layer: the last convolution of the encoder then runs again at each word, on a map that depends on the words said
# so far. This lesson derives both attentions, follows the gradient through the convolution and through time, measures what
# it costs, and asks what a channel's weight can depend on. The queries are made from $h_{t-1}$, as in Xu's order of lesson
# 19.

# %% [markdown]
# The symbols, for one photo: $X$ (L, D) is the map, $X_{id}$ channel $d$ at location $i$, and $h = h_{t-1}$ the state. The
# index $c$ of a weight means channels, $s$ means locations (spatial).
#
# | | channels | locations |
# |---|---|---|
# | summary | $v_d = \frac{1}{L} \sum_i X_{id}$ | none |
# | keys | $k_d = v_d W_c + b_c$, with $W_c$ (1, A) | $k_i = X_i W_s + b_s$, with $W_s$ (D, A) |
# | scores | $e_d = w_c \cdot \tanh(k_d + h W_{hc})$ | $e_i = w_s \cdot \tanh(k_i + h W_{hs})$ |
# | weights | $\beta = \operatorname{softmax}(e)$ over D | $\alpha = \operatorname{softmax}(e)$ over L |
# | result | $X'_{id} = \beta_d X_{id}$ | $X'_{id} = \alpha_i X_{id}$ |
#
# Both take a map and return a map of the same shape, so they can be put in either order. C-S does the channels first and
# gives their map to the spatial attention, S-C the other way round. At the end $z = \sum_i X'_i$ goes into the LSTM. If
# the locations come last, $z = \sum_i \alpha_i X_i$ is the context of lesson 09, of a map whose channels have weights.

# %%
from time import perf_counter

import numpy as np
from kit import DATA, graph, near, save, show
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

from satnp import load
from satnp.arrays.parameters import Parameters
from satnp.captioners import sca_cnn
from satnp.captioners.contract import Batch
from satnp.captioners.deferred import Deferred
from satnp.data.captions import pad, tokenise
from satnp.data.scenes import make_scenes
from satnp.layers import log_softmax, lstm_cell_backward, lstm_cell_forward, softmax, softmax_backward, softmax_forward
from satnp.proof import bugs
from satnp.proof.gradcheck import numeric_gradient
from satnp.reference.conv import conv2d

threadpool_limits(1)  # small matrices: two threads would wait for each other
np.set_printoptions(precision=4, suppress=True, linewidth=78)
rng = np.random.default_rng(0)
N, ROWS, COLUMNS, D, M, H, A, V = 2, 3, 4, 5, 3, 7, 8, 9
L = ROWS * COLUMNS
SIZES = {"N": N, "L": L, "D": D, "H": H, "A": A}
print(f"N {N} photos, L {L} locations ({ROWS} x {COLUMNS}), D {D} channels, H {H}, A {A}")

# %% [markdown]
# ## Predict
#
# 1. Two locations (rows) and two channels (columns): X = ((4, 0), (2, 6)). The weights are $\beta = (1/2, 1/2)$ and
#    $\alpha = (1/4, 3/4)$. What is $z$? Does it matter which of the two is multiplied first?
# 2. In the captioner the two orders give different results. Why?
# 3. One channel responds to red things and another one to blue things. In a certain photo both have the same mean. Can
#    $\beta$ give one of them more weight than the other?
#
# ## Run

# %%
X, beta, alpha = np.array([[4.0, 0], [2, 6]]), np.array([0.5, 0.5]), np.array([0.25, 0.75])
print("channels first ", (alpha[:, None] * (beta * X)).sum(axis=0))
print("locations first", (beta * (alpha[:, None] * X)).sum(axis=0))

# %% [markdown]
# $z = (1.25, 2.25)$ in both orders: with given weights the two products commute. In the captioner the weights are not
# given. The second attention computes its keys from the map that the first one returned, so its weights depend on the
# order.
#
# ### Backward of a map times weights
#
# The gradient of the loss by $x$ is written $dx$. A weight collects from all numbers that it multiplied, so the sums run
# over different axes:
#
# $$
# d\beta_d = \sum_i dX'_{id} X_{id} \quad \text{and} \quad d\alpha_i = \sum_d dX'_{id} X_{id}
# $$
#
# $X$ is read twice: it is multiplied, and the keys are made from it. For the locations, the gradient of the keys is
# that of lesson 08, $dk_i = de_i \, w_s \odot (1 - \tanh^2(k_i + h W_{hs}))$, and
#
# $$
# dX_{id} = \alpha_i dX'_{id} + (dk_i W_s^\top)_d
# $$
#
# For the channels, the key of channel $d$ comes from one number, the mean $v_d$, and each location has the share 1/L of
# it:
#
# $$
# dX_{id} = \beta_d dX'_{id} + \frac{1}{L} \, dk_d \cdot W_c
# $$
#
# In the code one pair of functions does both, because only the axes differ. `axis` is the axis along which the weights are
# equal, and so the axis of the sum above: 1 (the locations) for the channels' weights, 2 (the channels) for those of the
# locations.


# %%
def attention_forward(p, name, X, h, times=1):
    """name c or c2 for channels, s or s2 for locations, X (N, L, D), h (N, H) -> X times the weights, weights, cache"""
    axis = 1 if name[0] == "c" else 2
    x = X.mean(axis=1)[:, :, None] if axis == 1 else X  # (N, D, 1) or (N, L, D)
    u = np.tanh(x @ p[f"W_{name}"] + p[f"b_{name}"] + (h @ p[f"W_h{name}"])[:, None])
    weights, softmax_cache = softmax_forward(u @ p[f"w_{name}"])
    return X * times * np.expand_dims(weights, axis), weights, (axis, X, x, h, u, softmax_cache)


def attention_backward(p, name, dout, cache, g):
    """dout (N, L, D) -> dX (N, L, D), dh (N, H); adds the gradients of the weights to g"""
    axis, X, x, h, u, softmax_cache = cache
    de = softmax_backward((dout * X).sum(axis=axis), softmax_cache)
    dkeys = de[:, :, None] * p[f"w_{name}"] * (1 - u * u)  # (N, D, A) or (N, L, A)
    dquery, dx = dkeys.sum(axis=1), dkeys @ p[f"W_{name}"].T
    g.add(**{
        f"W_{name}": np.einsum("nix,nia->xa", x, dkeys), f"b_{name}": dkeys.sum(axis=(0, 1)), f"W_h{name}": h.T @ dquery,
        f"w_{name}": (de[:, :, None] * u).sum(axis=(0, 1)),
    })  # fmt: skip
    through_keys = dx[:, :, 0][:, None] / X.shape[1] if axis == 1 else dx
    return dout * np.expand_dims(softmax_cache.alpha, axis) + through_keys, dquery @ p[f"W_h{name}"].T


# %% [markdown]
# The same in satnp. `scaled` multiplies the weights by their number, so that their mean is 1 (the public code does it;
# `times` does it above). If the keys are computed before the loop (`keys` is given), `deferred.scores` is the backward pass
# of the scores and adds up their gradient for after the loop; else it is `additive_scores_backward`. `c_` is the constant
# of lesson 08, which changes no weight.

# %%
show(sca_cnn._attention_forward)
show(sca_cnn._attention_backward)


def world(**choices):
    """-> Config and random parameters of a tiny SCA-CNN"""
    config = sca_cnn.Config(V=V, D=D, M=M, H=H, A=A, rows=ROWS, scaled=False, dropout=0.0, **choices)
    shapes = sca_cnn.shapes(config)
    return config, Parameters(shapes, flat=0.7 * rng.standard_normal(sum(int(np.prod(shape)) for shape in shapes.values())))


config, p = world()
X, h, dz = rng.standard_normal((N, L, D)), rng.standard_normal((N, H)), rng.standard_normal((N, D))
X1, beta, cache_c = attention_forward(p, "c", X, h)
X2, alpha, cache_s = attention_forward(p, "s", X1, h)
g = p.zeros_like()
dX1, dh_s = attention_backward(p, "s", np.repeat(dz[:, None], L, axis=1), cache_s, g)  # z is the sum over the locations
dX, dh_c = attention_backward(p, "c", dX1, cache_c, g)

deferred, caches, map_ = Deferred(p, p.zeros_like()), {}, X
for name in ("c", "s"):
    map_, caches[name] = sca_cnn._attention_forward(p, config, name, map_, h)
near("z   against satnp's", map_.sum(axis=1), X2.sum(axis=1))
dX1_satnp, dquery_s = sca_cnn._attention_backward(config, "s", dz[:, None], None, caches["s"], deferred)
dX_satnp, dquery_c = sca_cnn._attention_backward(config, "c", dX1_satnp, None, caches["c"], deferred)
near("dX1 against satnp's", dX1_satnp, dX1)
near("dX  against satnp's", dX_satnp, dX)
near("dh  against satnp's", dquery_s @ p.W_hs.T + dquery_c @ p.W_hc.T, dh_s + dh_c)
near("dW_s against satnp's", deferred.g.W_s, g.W_s)
near("dW_c against satnp's", deferred.g.W_c, g.W_c)

# %% [markdown]
# ### Draw it
#
# The order C-S in one step, against satnp's arrays. `channels` and `locations` are the scores of the two attentions.
# `back_s` is $dk$ of the locations, `query_s` its sum over the locations; `query_c` is the same for the channels, and
# `to_v` is $dk_d \cdot W_c$. `slope(d, w)` is the backward of a softmax with the weights `w`.

# %%
u_c, u_s = cache_c[4], cache_s[4]
graph("21_c_s", [
    ("v", "X.mean(1)", {"X": "np.repeat(dv[:, None], L, 1) / L"}),
    ("e_c", "channels(v, h)", {"v": "to_v(de_c)", "h": "query_c(de_c) @ W_hc.T"}),
    ("beta", "softmax(e_c)", {"e_c": "slope(dbeta, beta)"}),
    ("X1", "beta[:, None] * X", {"beta": "(dX1 * X).sum(1)", "X": "beta[:, None] * dX1"}),
    ("e_s", "locations(X1, h)", {"X1": "back_s(de_s) @ W_s.T", "h": "query_s(de_s) @ W_hs.T"}),
    ("alpha", "softmax(e_s)", {"e_s": "slope(dalpha, alpha)"}),
    ("z", "mix(alpha, X1)", {"alpha": "(dz[:, None] * X1).sum(2)", "X1": "alpha[:, :, None] * dz[:, None]"}),
], dict(p.items()) | {
    "X": X, "h": h, "L": L, "softmax": softmax, "beta": caches["c"].softmax.alpha, "alpha": caches["s"].softmax.alpha,
    "channels": lambda v, h: np.tanh(v[:, :, None] @ p.W_c + p.b_c + (h @ p.W_hc)[:, None]) @ p.w_c,
    "locations": lambda X, h: np.tanh(X @ p.W_s + p.b_s + (h @ p.W_hs)[:, None]) @ p.w_s,
    "to_v": lambda de: (de[:, :, None] * p.w_c * (1 - u_c * u_c)) @ p.W_c[0],
    "query_c": lambda de: (de[:, :, None] * p.w_c * (1 - u_c * u_c)).sum(axis=1),
    "query_s": lambda de: (de[:, :, None] * p.w_s * (1 - u_s * u_s)).sum(axis=1),
    "back_s": lambda de: de[:, :, None] * p.w_s * (1 - u_s * u_s),
    "slope": lambda d, w: w * (d - (w * d).sum(axis=1, keepdims=True)), "mix": lambda w, X: np.einsum("nl,nld->nd", w, X),
    "z": map_.sum(axis=1), "dX": dX_satnp, "dX1": dX1_satnp, "dh": dquery_s @ p.W_hs.T + dquery_c @ p.W_hc.T,
}, SIZES, {"z": dz}, "X, X1 and h are each read twice, so each has two gradients")  # fmt: skip

# %% [markdown]
# ### A convolution inside the loop
#
# The paper attends in several layers. With two, the map that both attentions returned, $X'_t$, goes through a convolution
# and a ReLU, and two more attentions follow:
#
# $$
# R_t = \max(0, Y_t), \quad Y_{t,p} = \sum_k X'_{t,p+k} F_k + b_F
# $$
#
# with $p$ a cell of the map, $k$ one of the $K^2$ offsets of the kernel, and $F_k$ (D, D). In lesson 03 the same
# convolution ran once a photo. Here its input depends on $h_{t-1}$, so it runs once a word. The backward pass is that of
# lesson 03, and what is new is the sum over the steps. The filters are read at each step, so
#
# $$
# \begin{aligned}
# dY_t &= dR_t \odot [Y_t > 0] \\
# dX'_{t,p} &= \sum_k dY_{t,p-k} F_k^\top \\
# dF_k &= \sum_t \sum_p (X'_{t,p+k})^\top dY_{t,p}, \quad db_F = \sum_t \sum_p dY_{t,p}
# \end{aligned}
# $$
#
# And $dX'_t$ does not end at the photo. It goes into the first layer's attentions, through their queries into $h_{t-1}$,
# and so into all earlier steps. In the plain form below each offset is one product.


# %%
def windows(X, K):
    """X (N, R, S, D), padded with K // 2 zeros -> the K * K views of the padded map, and the padded map"""
    R, S = X.shape[1:3]
    padded = np.pad(X, ((0, 0), (K // 2, K // 2), (K // 2, K // 2), (0, 0)))
    return [padded[:, i : i + R, j : j + S] for i in range(K) for j in range(K)], padded


def convolution_forward(X, F, b):
    """X (N, R, S, D), F (K*K, D, D), b (D,) -> ReLU(Y) (N, R, S, D), cache"""
    views, _ = windows(X, int(len(F) ** 0.5))
    Y = sum(view @ F_k for view, F_k in zip(views, F, strict=True)) + b
    return np.maximum(Y, 0), (X, F, Y > 0)


def convolution_backward(dR, cache):
    """dR (N, R, S, D) -> dX (N, R, S, D), dF (K*K, D, D), db (D,)"""
    X, F, positive = cache
    dY, K = dR * positive, int(len(F) ** 0.5)
    dF = np.stack([np.tensordot(view, dY, ((0, 1, 2), (0, 1, 2))) for view in windows(X, K)[0]])
    dviews, dpadded = windows(np.zeros_like(X), K)
    for dview, F_k in zip(dviews, F, strict=True):
        dview += dY @ F_k.T  # a view of dpadded: cells that lie in several windows collect from all of them
    return dpadded[:, K // 2 : K // 2 + X.shape[1], K // 2 : K // 2 + X.shape[2]], dF, dY.sum(axis=(0, 1, 2))


two, q = world(layers=2, kernel=3)
F = q.F.reshape(9, D, D)
maps, dR = rng.standard_normal((2, N, ROWS, COLUMNS, D)), rng.standard_normal((2, N, ROWS, COLUMNS, D))  # two steps
(R1, cache1), (R2, cache2) = (convolution_forward(x, F, q.b_F) for x in maps)
near("R1 against the plain sum of lesson 03", R1, np.maximum(conv2d(maps[0], F.reshape(3, 3, D, D), q.b_F, 1, 1), 0))
(dx1, dF1, _), (dx2, dF2, _) = (convolution_backward(d, cache) for d, cache in zip(dR, (cache1, cache2), strict=True))

g = q.zeros_like()
flat = [x.reshape(N, L, D) for x in (*maps, *dR)]
satnp_caches = [sca_cnn._convolution_forward(q, two, x)[1] for x in flat[:2]]
dx_satnp = [sca_cnn._convolution_backward(d, cache, g) for d, cache in zip(flat[2:], satnp_caches, strict=True)]
near("dX' against satnp's", np.stack(dx_satnp).reshape(maps.shape), np.stack([dx1, dx2]))
near("dF, the sum over two steps, against satnp's", g.F.reshape(F.shape), dF1 + dF2)

# %% [markdown]
# Two steps with the same filters. `conv_back` is $dX'$ of the formula above and `conv_weights` its sum for $dF$.

# %%
graph("21_convolution", [
    ("Y1", "conv(X1, F) + b_F", {"X1": "conv_back(dY1)", "F": "conv_weights(X1, dY1)"}),
    ("Y2", "conv(X2, F) + b_F", {"F": "conv_weights(X2, dY2)", "X2": "conv_back(dY2)"}),
    ("R1", "np.maximum(Y1, 0)", {"Y1": "dR1 * (Y1 > 0)"}),
    ("R2", "np.maximum(Y2, 0)", {"Y2": "dR2 * (Y2 > 0)"}),
], {
    "X1": maps[0], "X2": maps[1], "F": F, "b_F": q.b_F, "R1": R1, "R2": R2,
    "conv": lambda X, F: sum(view @ F_k for view, F_k in zip(windows(X, 3)[0], F, strict=True)),
    "conv_back": lambda dY: convolution_backward(dY, (maps[0], F, 1))[0],
    "conv_weights": lambda X, dY: convolution_backward(dY, (X, F, 1))[1],
    "dX1": dx_satnp[0].reshape(maps[0].shape), "dX2": dx_satnp[1].reshape(maps[0].shape), "dF": g.F.reshape(F.shape),
}, {"N": N, "R": ROWS, "S": COLUMNS, "D": D, "KK": 9}, {"R1": dR[0], "R2": dR[1]}, "F is read at each step")  # fmt: skip

# %% [markdown]
# ### What can be outside of the loop, and what it costs
#
# | | depends on | place |
# |---|---|---|
# | keys of the first attention | photo | before the loop |
# | keys of the second attention | weights of the first, so $h_{t-1}$ | in the loop |
# | convolution, keys of the second layer | $X'_t$, so $h_{t-1}$ | in the loop |
# | gradients of $W_h$, $W_z$, and of the queries' weights $W_{hc}$, $W_{hs}$ | all steps | one product after the loop |
# | gradient of $F$ | all steps | satnp adds it up in the loop |
#
# The last row is a choice: as one product after the loop, $dF$ would need the maps of all steps side by side. The order
# matters for the cost, too. In C-S the second keys are $X'_i W_s$: L D A multiplications a word. In S-C the second keys
# are $v_d W_c$ with the mean of the weighted map: D A. And the convolution needs $K^2$ L D D. The next cell times a
# training step of each, with 16 captions of 12 words on maps of 8 x 8 x 128, and prints the size of all maps $X'_t$ of a
# minibatch.

# %%
SIZE = {"V": 30, "D": 128, "M": 32, "H": 64, "A": 32, "rows": 8, "dropout": 0.0}
FORMS = {
    "C-S": {"order": "C-S"}, "S-C": {"order": "S-C"}, "C-S, two layers, K 1": {"layers": 2, "kernel": 1},
    "C-S, two layers, K 3": {"layers": 2, "kernel": 3},
}  # fmt: skip
draw = np.random.default_rng(1)
large = Batch(draw.random((16, 64, 128), dtype=np.float32), draw.integers(4, 30, (16, 13)), np.ones((16, 12), np.float32))
for name, form in FORMS.items():
    large_config = sca_cnn.Config(**SIZE, **form)
    large_p, took = sca_cnn.captioner.init(large_config, draw), []
    for _ in range(4):
        started = perf_counter()
        _, cache = sca_cnn.captioner.forward(large_p, large_config, large, sca_cnn.captioner.Noise())
        sca_cnn.captioner.backward(cache, large_p.zeros_like(), frozen=True)
        took.append(perf_counter() - started)
    kept = {id(x.X): x.X.nbytes for step in cache.steps for k, x in step.caches.items() if k != "F"}  # the photo once
    print(f"{name:22} {1e3 * min(took):6.0f} ms a step, {sum(kept.values()) / 2**20:5.1f} MiB of maps in the cache")

# %% [markdown]
# Where this was written, a step with two layers took two to three times as long as one with one layer if the kernel was 1,
# and five to eight times as long if it was 3. The maps are kept for the backward pass. A map of all photos has .5 MiB
# here, so with one layer the cache has the photos and one map a word, and with two layers three maps a word. The order of
# the two attentions makes a small difference only: in both, a word needs (L + D) A tanh's. On photos, with one layer and
# 512 channels (A = 128), a step takes 2.22 s, and one of Show, Attend and Tell .65 s
# (`tests/benchmarks/results/flickr8k_compare.md`).

# %% [markdown]
# ## Look
#
# `sca_cnn.npz` was trained on rendered scenes with one layer, C-S (`lessons/data/README.md`). It is given the true
# captions of 300 unseen scenes. First the third question: what does a channel's weight depend on? In the figure each point
# is one of the 128 channels of a scene, at three words: its mean $v_d$, and its weight times 128, so that 1 is the mean
# weight. Then the loss is measured with equal weights in place of the channels' or the locations'. `exp(entropy)` says
# over how many channels the weights are spread: 128 if all are equal, 1 if one channel has all the weight.

# %%
file, model = np.load(DATA / "sca_cnn.npz"), load(DATA / "scenes.npz")
trained_config = sca_cnn.Config(**{name: value.item() for name, value in file.items() if name != "flat"})
trained = Parameters(sca_cnn.shapes(trained_config), flat=file["flat"].astype(np.float32))
scenes = make_scenes(300, "test", 0)
ids, mask = pad([model.vocabulary.encode(tokenise(scene.captions[0])) for scene in scenes])
seen = model.annotate(np.stack([scene.image for scene in scenes]))


def follow(p, annotations, ids, equal=()):
    """log p of all words (N, T, V), and beta (N, T, D); the attentions named in `equal` give all weights alike"""
    (count, places, channels), H = annotations.shape, len(p.W_h)
    h = c = np.zeros((count, H), annotations.dtype)
    log_p, betas = [], []
    for t in range(ids.shape[1] - 1):
        X, weights = annotations, {}
        for name, number in (("c", channels), ("s", places)):
            out, weights[name], _ = attention_forward(p, name, X, h, number)
            X = X if name in equal else out  # times their number, equal weights are 1
        gates = p.E[ids[:, t]] @ p.W_x + p.b + h @ p.W_h + X.mean(axis=1) @ p.W_z
        (h, c), _ = lstm_cell_forward(gates, c)
        log_p.append(log_softmax(h @ p.W_p + p.b_p))
        betas.append(weights["c"])
    return np.stack(log_p, axis=1), np.stack(betas, axis=1)


def nats(log_p):
    return -np.take_along_axis(log_p, ids[:, 1:, None], axis=2)[:, :, 0]


log_p, betas = follow(trained, seen, ids)
loss, _ = sca_cnn.captioner.forward(trained, trained_config, Batch(seen, ids, mask), sca_cnn.captioner.Noise())
near("the loss against satnp's", (mask * nats(log_p)).sum() / len(ids), loss, 1e-5)  # float32

figure = Figure(figsize=(9, 3), layout="constrained")
words, v = scenes[0].captions[0].split(), seen[0].mean(axis=0)
for ax, t in zip(figure.subplots(1, 3, sharey=True), (1, 3, 5), strict=True):
    ax.plot(v, 128 * betas[0, t], "o", markersize=3)
    ax.set(title=f"at {words[t]!r}", xlabel="v_d, the channel's mean", ylabel="128 beta_d")
save(figure, "21_channels", "at each word all channels lie on one curve: the weight is a function of the mean alone")

# %%
experiments = {"as it is": (), "channels alike": ("c",), "locations alike": ("s",), "both alike": ("c", "s")}
found = {name: nats(follow(trained, seen, ids, equal)[0]) for name, equal in experiments.items()}
groups = {
    "shapes": ("circle", "square", "triangle", "cross"), "colours": ("red", "green", "cyan", "pink", "yellow", "blue"),
    "of, the, <end>": ("of", "the", "<end>"), "all": model.vocabulary.words,
}  # fmt: skip
print(f"{'nats a word':18}" + "".join(f"{name:>15}" for name in groups))
for name, values in found.items():
    row = ""
    for group in groups.values():
        here = np.isin(ids[:, 1:], [model.vocabulary.words.index(word) for word in group]) & (mask > 0)
        row += f"{values[here].mean():15.3f}"
    print(f"{name:18}{row}")
entropy = -(betas * np.log(betas)).sum(axis=2)[mask > 0]
print(f"exp(entropy) of the channels {np.exp(entropy).mean():.1f} of 128; largest 128 beta {128 * betas.max():.2f}")

# %% [markdown]
# All points of a word lie on one curve. They must: the key of channel $d$ is $v_d W_c + b_c$ with the same $W_c$ and $b_c$
# for all channels, so $e_d$ is one function of one number $v_d$, and the word changes only the function. So the answer to
# the third question is no: two channels with the same mean have the same weight, whatever they detect. A location is
# different. Its key comes from D numbers, and what it shows is in them.
#
# The second output says how much the captioner uses this. Its channel weights are nearly alike (126.7 of 128). With
# exactly equal channel weights the loss is .018 nats a word higher, with equal weights of the locations .978. So on these
# scenes its spatial attention does nearly all of the work. On Flickr8k SCA-CNN had the best CIDEr of ten captioners after
# four epochs, .4147 where Show, Attend and Tell had .3918 (`tests/benchmarks/results/flickr8k_compare.md`); how much of
# this is due to the channels was not measured.
#
# And `scaled` is not a detail. Without it a softmax over 128 channels makes the map 128 times as small: trained that way,
# with the same recipe, .692 of the captions were true in place of .950 (`tests/benchmarks/results/family_scenes.md`).

# %% [markdown]
# ## Check by number
#
# Two layers through three steps, by hand: the parts in satnp's order, and the backward in the reverse order. The loss is
# the sum of all $h_t$ times random numbers.


# %%
T = 3
x, dhs = rng.standard_normal((T, N, 4 * H)), rng.standard_normal((T, N, H))
grid, zeros = (N, ROWS, COLUMNS, D), np.zeros((N, H))


def run(X, F):
    """X (N, L, D), F (K*K, D, D) -> hs (T, N, H), steps"""
    h, c, hs, steps = zeros, zeros, [], []
    for x_t in x:
        out, caches = X, {}
        for name in sca_cnn.parts(two):  # c, s, F, c2, s2
            if name == "F":
                out, caches[name] = convolution_forward(out.reshape(grid), F, q.b_F)
                out = out.reshape(N, L, D)
            else:
                out, _, caches[name] = attention_forward(q, name, out, h)
        (h_new, c), cell = lstm_cell_forward(x_t + h @ q.W_h + out.sum(axis=1) @ q.W_z, c)
        steps.append((caches, cell))
        h = h_new
        hs.append(h)
    return np.stack(hs), steps


def back(steps):
    """-> dX (N, L, D), dF (K*K, D, D), each summed over the steps, and the gradients of the attentions"""
    dh, dc, dX, dF, g = zeros, zeros, 0, 0, q.zeros_like()
    for t in reversed(range(T)):
        caches, cell = steps[t]
        dgates, dc = lstm_cell_backward((dhs[t] + dh, dc), cell)
        dh = dgates @ q.W_h.T
        d = np.repeat((dgates @ q.W_z.T)[:, None], L, axis=1)  # z is the sum over the locations
        for name in reversed(sca_cnn.parts(two)):
            if name == "F":
                d, dF_t, _ = convolution_backward(d.reshape(grid), caches[name])
                d, dF = d.reshape(N, L, D), dF + dF_t
            else:
                d, dh_query = attention_backward(q, name, d, caches[name], g)
                dh = dh + dh_query
        dX = dX + d
    return dX, dF, g


def satnp_gradients(steps=T):
    """The same loss with satnp's cells -> dX, gradients of all weights"""
    photo, state, photo_cache = sca_cnn.photo_forward(q, two, X)
    caches, deferred = [], Deferred(q, q.zeros_like())
    for t in range(steps):
        _, state, _, cache = sca_cnn.cell_forward(q, two, photo, x[t], state)
        caches.append(cache)
    dstate = zeros, zeros
    for t in reversed(range(steps)):
        _, dstate = sca_cnn.cell_backward(q, two, (dhs[t],), dstate, None, caches[t], deferred)
    deferred.finish()
    return sca_cnn.photo_backward(q, two, dstate, deferred, photo_cache, False), deferred.g


dX, dF, g = back(run(X, F)[1])
near("dX, complex step", dX, numeric_gradient(lambda X: (run(X, F)[0] * dhs).sum(), X))
near("dF, complex step", dF, numeric_gradient(lambda F: (run(X, F)[0] * dhs).sum(), F))
dX_satnp, right = satnp_gradients()
near("dX, satnp's", dX_satnp, dX)
near("dF, satnp's", right.F.reshape(F.shape), dF)
for name in ("W_c", "W_hc", "W_s", "W_hs", "W_c2", "W_hc2", "W_s2", "W_hs2"):
    near(f"d{name}, satnp's", right[name], g[name])

# %% [markdown]
# ## Break it
#
# Four planted bugs in satnp's cell. Which gradients does each make wrong, and which bugs does a check with captions of one
# word, T = 1, not find? Predict both: `W_s` belongs to the first layer, `W_s2` to the second, behind the convolution.

# %%
NAMES = (
    "convolution's gradient of one step only", "first layer's gradient through the convolution lost",
    "map's gradient through the keys of its locations lost", "h's gradient from the channels' attention lost",
)  # fmt: skip
CHECKED = ("F", "W_s", "W_hs", "W_s2", "W_h")
print("relative error    " + "".join(f"{'d' + name:>8}" for name in CHECKED) + "      dX")
for bug in (bug for name in NAMES for bug in bugs.BUGS if bug.name == name):
    print(bug.name)
    for steps in (T, 1):
        dX_right, right = satnp_gradients(steps)
        with bugs.in_place(bug):
            dX_wrong, wrong = satnp_gradients(steps)
        pairs = [(wrong[name], right[name]) for name in CHECKED] + [(dX_wrong, dX_right)]
        errors = [np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-300) for a, b in pairs]
        print(f"    T = {steps}         " + "".join(f"{error:8.4f}" for error in errors))

# %% [markdown]
# The first bug, an assignment in place of a sum, is exactly right with one word: there is one step to sum. The second cuts
# the first layer off from the loss, and its $dW_s$ is 100 % wrong, while all of the second layer is nearly right. The
# third forgets one of the two gradients of a map that is read twice. It is wrong in everything that lies before an
# attention to locations, $F$ among them. A check with one word finds these two. (There $dW_{hs}$ is 0 with any backward,
# because $h_0 = 0$.)
#
# The fourth is the reason for a tight tolerance. The gradient of $h_{t-1}$ from the channels' queries is small here, and
# without it the gradients are off by about .03 % or less. A check by central differences with a tolerance of .1 % lets it
# through. The complex step finds it: the right code is off by less than 1e-12. With one word it cannot be seen at all,
# because $h_0$ is a constant and needs no gradient.
#
# ## Exercises
#
# 1. By hand, with X, $\beta$ and $\alpha$ of the first question and $dz = (1, 1)$, order C-S: what are $d\alpha$ and
#    $d\beta$? Check: (2, 4) and (2.5, 4.5).
# 2. Write the order S-C with `attention_forward` and `attention_backward`. Check $dX$ by complex step, below 1e-10, and
#    that $z$ differs from that of C-S.
# 3. Change channel 1 of X so that it has the mean of channel 0, but other values. Check: their $\beta$ are equal. Now give
#    each channel a key of its own: add a random P (D, A) to the keys. Check: their $\beta$ differ. What is the gradient of
#    P?
# 4. A convolution with a kernel of 1, without bias and ReLU, gives the same map whether the locations' weights multiply its
#    input or its output. Check: a relative difference below 1e-12, but not with a kernel of 3. When could such a convolution
#    run once a photo?
# 5. Count the multiplications a word, for a map of 14 x 14 x 512 and A = 512, of the keys $X'_i W_s$ and of a convolution
#    with a kernel of 3. Check: 51 and 462 million. How often does the convolution run for a caption of 12 words, inside
#    the loop and outside of it?
#
# ## Next
#
# So far each word has its own loss. Lesson 22 gives one reward to a whole caption.
