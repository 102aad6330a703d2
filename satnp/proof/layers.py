"""Gradient checks of the layers, and the mistakes that they must catch.

Sizes are small and mostly different, so that a misplaced axis rarely fits by chance. Inputs and biases are random, so that
no input of a ReLU is exactly 0 and no maximum has a tie.
"""

from functools import partial

import numpy as np

from satnp import layers
from satnp.arrays import kernels
from satnp.layers import (
    activations,
    cbam,
    conv,
    initial_state,
    lstm,
    lstm_without_tanh,
    noisy_or,
    penalty,
    ranking,
    slots,
    vocabulary,
)
from satnp.proof.cases import inputs
from satnp.proof.gradcheck import Case
from satnp.proof.planting import Bug


def _layer(name, constants=(), options=None, **entries):
    """The Case of layers.NAME_forward and layers.NAME_backward; NAME is the first word of `name`, the rest is a label."""
    pair = name.partition(" ")[0]
    forward, backward = (getattr(layers, f"{pair}_{way}") for way in ("forward", "backward"))
    if options:
        forward = partial(forward, **options)
    return Case(f"layers/{name}", inputs(**entries), forward, backward, constants)


def _conv(K, stride, padding):
    return _layer(
        f"conv2d K={K} stride={stride} padding={padding}", (), {"stride": stride, "padding": padding},
        x=(2, 7, 6, 3), W=(K, K, 3, 4), b=(4,),
    )  # fmt: skip


def _depthwise(K, stride, R, S):
    return _layer(
        f"depthwise K={K} stride={stride} {R} x {S}", (), {"stride": stride}, x=(2, R, S, 3), W=(K, K, 3), b=(3,)
    )  # fmt: skip


def _wide(*shape):
    """Numbers so large that some sums of them are above 6, and others below 0 or between."""
    return lambda rng: 8 * rng.standard_normal(shape)


def _max_pool(K, stride, ceil, relu=False):
    name = f"max_pool K={K} stride={stride} {'ceil' if ceil else 'floor'}{' relu' if relu else ''}"
    return _layer(name, (), {"K": K, "stride": stride, "ceil": ceil, "relu": relu}, x=(2, 7, 6, 3))


def _several_labels(rng):
    """Labels (2, 4): each photo has words and lacks others."""
    return np.array([[1, 0, 0, 1], [0, 1, 1, 0.0]])


def _others(rng):
    """Which sentence (column) is not of the photo (row): sentences 1 and 3 are of the same photo."""
    others = 1 - np.eye(5)
    others[1, 3] = others[3, 1] = 0
    return others


SLOTS = ((8, 5), (10, -1)), ((7, 9),), ()  # the visual words of three classes: two, one and no fine-grained words
CONVOLUTIONS = (1, 1, 0), (1, 2, 0), (2, 2, 1), (3, 1, 0), (3, 1, 1), (3, 2, 0), (3, 2, 1), (5, 3, 2)

CASES = [
    _layer("affine", x=(3, 4), W=(4, 5), b=(5,)),
    _layer("affine square", x=(3, 4), W=(4, 4), b=(4,)),  # only here does a transposed gradient have the right shape
    _layer("embedding repeated ids", ids=lambda rng: np.array([2, 0, 2, 5, 2]), E=(6, 3)),
    _layer("dropout", ("mask",), x=(4, 5), mask=lambda rng: layers.dropout_mask(rng, (4, 5), 0.4, np.float64)),
    _layer("relu", x=(4, 5)),
    _layer("tanh", x=(4, 5)),
    _layer("scaled_tanh", x=(4, 5)),
    _layer("sigmoid", x=(4, 5)),
    _layer("softmax", scores=(3, 5)),
    _layer(
        "cross_entropy zero weights", ("weights",),
        logits=(5, 4), targets=lambda rng: rng.integers(0, 4, 5), weights=lambda rng: rng.random(5) * [1, 0, 1, 1, 0],
    ),
    _layer(
        "vocabulary zero weights", ("weights",), hidden=(5, 3), W=(3, 4), b=(4,),
        targets=lambda rng: rng.integers(0, 4, 5), weights=lambda rng: rng.random(5) * [1, 0, 1, 1, 0],
    ),
    _layer(
        "vocabulary smoothing", ("weights",), {"smoothing": 0.1}, hidden=(5, 3), W=(3, 4), b=(4,),
        targets=lambda rng: rng.integers(0, 4, 5), weights=lambda rng: rng.random(5) * [1, 0, 1, 1, 0],
    ),
    _layer(
        "vocabulary words never said", ("weights",), {"never": (0, 3), "late": (1, 2)}, hidden=(5, 3), W=(3, 6), b=(6,),
        targets=lambda rng: np.r_[rng.choice([2, 4, 5], 2), 1, rng.choice([1, 2, 4, 5], 2)],
        weights=lambda rng: rng.standard_normal(5) * [1, 0, 1, 1, 0],
    ),
    _layer(
        "vocabulary at a temperature", ("weights",), {"temperature": 0.6, "smoothing": 0.2}, hidden=(5, 3), W=(3, 4), b=(4,),
        targets=lambda rng: rng.integers(0, 4, 5), weights=lambda rng: rng.standard_normal(5) * [1, 0, 1, 1, 0],
    ),
    _layer(
        "smooth_l1", ("y", "weights"),
        x=_wide(4, 3), y=(4, 3), weights=lambda rng: rng.random(4) * [1, 0, 1, 1],
    ),
    _layer(
        "word_loss words never said", ("weights",), {"never": (0, 3), "late": (1, 2), "temperature": 0.7}, logits=(5, 6),
        targets=lambda rng: np.r_[rng.choice([2, 4, 5], 2), 1, rng.choice([1, 2, 4, 5], 2)],
        weights=lambda rng: rng.standard_normal(5) * [1, 0, 1, 1, 0],
    ),
    _layer(
        "word_loss smoothing", ("weights",), {"smoothing": 0.2, "temperature": 0.6}, logits=(5, 4),
        targets=lambda rng: rng.integers(0, 4, 5), weights=lambda rng: rng.standard_normal(5) * [1, 0, 1, 1, 0],
    ),
    _layer(
        "slots", (), {"words": SLOTS, "unknown": 3},
        text=(5, 11), pointer=(5, 5), classes=lambda rng: rng.dirichlet(np.ones(3), (5, 4)), fine=(5, 4, 3), plural=(5, 4),
    ),
    *(_conv(*sizes) for sizes in CONVOLUTIONS),
    _layer("conv2d_relu", (), {"padding": 1}, x=(2, 7, 6, 3), W=(3, 3, 3, 4), b=(4,)),
    _layer("relu6", x=_wide(4, 5)),
    _layer("conv2d_relu6", (), {"padding": 1}, x=_wide(2, 7, 6, 3), W=(3, 3, 3, 4), b=(4,)),
    *(_depthwise(*sizes) for sizes in ((3, 1, 7, 6), (3, 2, 7, 6), (3, 2, 8, 5), (5, 2, 8, 7), (2, 1, 4, 5), (2, 3, 8, 7))),
    _layer("depthwise_relu6", x=_wide(2, 7, 6, 3), W=(3, 3, 3), b=(3,)),
    _layer("separable", (), {"stride": 2}, x=_wide(2, 8, 6, 3), W2=(3, 3, 3), b2=(3,), W3=(1, 1, 3, 4), b3=(4,)),
    _layer(
        "inverted_residual", x=_wide(2, 7, 6, 3),
        W1=(1, 1, 3, 5), b1=(5,), W2=(3, 3, 5), b2=(5,), W3=(1, 1, 5, 3), b3=(3,),
    ),
    _layer(
        "inverted_residual stride=2", (), {"stride": 2}, x=_wide(2, 8, 6, 3),
        W1=(1, 1, 3, 5), b1=(5,), W2=(3, 3, 5), b2=(5,), W3=(1, 1, 5, 4), b3=(4,),
    ),
    _layer("expand_relu", x=(2, 5, 6, 3), W1=(1, 1, 3, 4), b1=(4,), W3=(3, 3, 3, 4), b3=(4,)),
    *(_max_pool(*sizes) for sizes in ((2, 2, False), (3, 2, False), (3, 2, True), (2, 3, True), (2, 2, False, True))),
    _layer("average_pool K=2 stride=2", (), {"K": 2, "stride": 2}, x=(2, 7, 6, 3)),
    _layer("average_pool K=3 stride=2", (), {"K": 3, "stride": 2}, x=(2, 7, 6, 3)),
    _layer("noisy_or", z=(2, 5, 4)),
    _layer("noisy_or_loss", ("y",), z=(2, 5, 4), y=_several_labels),
    _layer("noisy_or_loss far below 0", ("y",), z=lambda rng: rng.standard_normal((2, 5, 4)) - 90, y=_several_labels),
    _layer("lstm_cell", gates=(3, 20), c_prev=(3, 5)),
    _layer("lstm_cell_without_tanh", gates=(3, 20), c_prev=(3, 5)),
    _layer("additive_scores", keys=(2, 5, 4), query=(2, 4), v=(4,), c=(1,)),
    _layer("additive_steps", keys=(2, 5, 4), query=(6, 4), v=(4,), c=(1,)),  # 3 steps
    _layer("dot_scores", keys=(2, 5, 4), query=(2, 4)),
    _layer("context", alpha=(2, 5), annotations=(2, 5, 4)),
    _layer("gate scalar", h=(3, 5), context=(3, 4), W=(5, 1), b=(1,)),
    _layer("gate vector", h=(3, 5), context=(3, 4), W=(5, 4), b=(4,)),
    _layer("mean_annotation", annotations=(2, 5, 4)),
    _layer(
        "masked_mean", ("present",),
        annotations=(2, 5, 4), present=lambda rng: np.array([[1, 0, 1, 1, 0], [1, 1, 1, 1, 0.0]]),
    ),
    _layer("normalise", x=(3, 5)),
    _layer(
        "alignment", ("mask",),
        v=(3, 5, 4), s=(2, 6, 4), mask=lambda rng: np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0.0]]),
    ),
    _layer("ranking_loss", ("others",), S=(5, 5), others=_others),
    _layer("ranking_loss hardest", ("others",), {"hardest": True}, S=(5, 5), others=_others),
    _layer("channel_gate", x=(2, 4, 5, 6), W_1=(6, 3), b_1=(3,), W_2=(3, 6), b_2=(6,)),
    _layer("location_gate", x=(2, 4, 5, 6), W=(3, 3, 2, 1), b=(1,)),
    _layer("cbam", x=(2, 4, 5, 6), W_1=(6, 3), b_1=(3,), W_2=(3, 6), b_2=(6,), W=(3, 3, 2, 1), b=(1,)),
    _layer("initial_state", annotations=(2, 7, 4), W_h=(4, 5), b_h=(5,), W_c=(4, 5), b_c=(5,)),
    _layer("deep_output", words=(3, 6), h=(3, 5), z=(3, 4), L_h=(5, 6), L_z=(4, 6), b=(6,)),
    _layer(
        "doubly_stochastic", ("mask",),
        alphas=(4, 3, 5), mask=lambda rng: np.array([[1, 1, 1], [1, 1, 1], [1, 0, 1], [0, 0, 1.0]]),
    ),
]  # fmt: skip

SECOND_OPINION = (
    "layers/affine", "layers/softmax", "layers/conv2d K=3 stride=2 padding=1", "layers/max_pool K=3 stride=2 ceil",
    "layers/lstm_cell", "layers/additive_scores",
)  # fmt: skip

BUGS = [
    Bug("weight not transposed", layers.affine_backward,
        "dout @ W.T", "dout @ W", "layers/affine square", {"term"}),
    Bug("weight gradient transposed", layers.affine_backward,
        "x.T @ dout", "dout.T @ x", "layers/affine square", {"transposed"}),
    Bug("0.01 % too large", layers.affine_backward,
        "dout @ W.T", "1.0001 * dout @ W.T", "layers/affine", {"factor"}),
    Bug("mean for sum", layers.affine_backward,
        "dout.sum(axis=0)", "dout.mean(axis=0)", "layers/affine", {"factor"}),
    Bug("bias gradient not summed", layers.affine_backward,
        "dout.sum(axis=0)", "dout", "layers/affine", {"shape"}),
    Bug("a gradient not returned", layers.affine_backward,
        "return dx, dW, db", "return dx, dW", "layers/affine", {"missing"}),
    Bug("upstream gradient written over", layers.dropout_backward,
        "dout * mask", "dout.__imul__(mask)", "layers/dropout", {"mutation"}),
    Bug("dropout forgotten on the way back", layers.dropout_backward,
        "dout if mask is None else dout * mask", "dout", "layers/dropout", {"mask"}),
    Bug("repeated word counted once", layers.embedding_backward,
        "dE[words] = np.add.reduceat(dout[order], starts)", "dE[ids] = dout", "layers/embedding repeated ids", {"block"}),
    Bug("ReLU without its mask", layers.relu_backward,
        "dout * positive", "dout", "layers/relu", {"mask"}),
    Bug("tanh derivative forgotten", activations.tanh_gradient,
        "dout * (1 - out * out)", "dout", "layers/tanh", {"term"}),
    Bug("scale of the scaled tanh forgotten in its slope", activations.scaled_tanh_gradient,
        "dout * 2 / 3", "dout", "layers/scaled_tanh", {"factor"}),
    Bug("slope of the scaled tanh as if its largest value were 1", activations.scaled_tanh_gradient,
        "(1.7159 - out * out / 1.7159)", "(1 - out * out)", "layers/scaled_tanh", {"term"}),
    Bug("nothing returned", layers.tanh_backward,
        "return tanh_gradient", "tanh_gradient", "layers/tanh", {"missing"}),
    Bug("sigmoid derivative without its second factor", activations.sigmoid_gradient,
        "dout * out * (1 - out)", "dout * out", "layers/sigmoid", {"term"}),
    Bug("only the diagonal of softmax's Jacobian", kernels.softmax_gradient,
        "(alpha * dalpha).sum(axis=-1, keepdims=True)", "alpha * dalpha", "layers/softmax", {"term"}),
    Bug("target word not subtracted", layers.cross_entropy_backward,
        "-= scale[:, 0]", "-= 0 * scale[:, 0]", "layers/cross_entropy zero weights", {"scattered"}),
    Bug("padded words not masked", layers.cross_entropy_backward,
        "dloss * weights", "dloss * (weights * 0 + 1)", "layers/cross_entropy zero weights", {"mask"}),
    Bug("division by a weight of 0", layers.cross_entropy_backward,
        "dloss * weights", "dloss * weights * weights / weights", "layers/cross_entropy zero weights", {"non-finite"}),
    Bug("slope of far numbers not limited", layers.smooth_l1_backward,
        "xp.where(small, d, xp.sign(d.real))", "d", "layers/smooth_l1", {"term"}),
    Bug("rows without weight counted in the box loss", layers.smooth_l1_backward,
        "weights[:, None]", "(weights[:, None] * 0 + 1)", "layers/smooth_l1", {"mask"}),
    Bug("stride ignored in dx", conv.conv2d_backward_input,
        "window(i, stride, P), window(j, stride, Q)", "slice(i, i + P), slice(j, j + Q)",
        "layers/conv2d K=3 stride=2 padding=0", {"term"}),
    Bug("padding not cut off dx", conv.conv2d_backward_input,
        "padding : padding + R, padding : padding + S", ":R, :S", "layers/conv2d K=3 stride=2 padding=1", {"term"}),
    Bug("last kernel column skipped", conv.conv2d_backward_input,
        "for j in range(K)", "for j in range(K - 1)", "layers/conv2d K=2 stride=2 padding=1", {"block"}),
    Bug("halves of expand swapped", conv.expand_relu_backward,
        "dout[..., :F]", "dout[..., -F:]", "layers/expand_relu", {"term"}),
    Bug("middle of expand lost in dx", conv.expand_relu_backward,
        "dx1 + dx3", "dx3", "layers/expand_relu", {"term"}),
    Bug("upper bound of ReLU6 forgotten on the way back", layers.relu6_backward,
        "(out > 0) & (out < 6)", "out > 0", "layers/relu6", {"mask"}),
    Bug("stride ignored in dx of a depthwise convolution", layers.depthwise_backward,
        "window(i, stride, P), window(j, stride, Q)", "slice(i, i + P), slice(j, j + Q)",
        "layers/depthwise K=3 stride=2 8 x 5", {"term"}),
    Bug("padding taken as symmetric", layers.depthwise_backward,
        "top : top + R, left : left + S", "bottom : bottom + R, right : right + S",
        "layers/depthwise K=3 stride=2 8 x 5", {"term"}),
    Bug("filter rotated in dx of a depthwise convolution", layers.depthwise_backward,
        "d * W[i, j]", "d * W[K - 1 - i, K - 1 - j]", "layers/depthwise K=3 stride=1 7 x 6", {"term"}),
    Bug("depthwise weight gradient summed over the channels", layers.depthwise_backward,
        "(seen[cells] * d)", "(seen[cells].sum(axis=3, keepdims=True) * d)",
        "layers/depthwise K=3 stride=1 7 x 6", {"term"}),
    Bug("depthwise weight gradient of the first row only", layers.depthwise_backward,
        "(seen[cells] * d)", "(seen[cells] * d)[:, :1]",
        "layers/depthwise K=5 stride=2 8 x 7", {"term"}),
    Bug("ReLU6 of a depthwise convolution forgotten on the way back", layers.depthwise_relu6_backward,
        "relu6_backward(dout, cache.relu)", "dout", "layers/depthwise_relu6", {"mask", "term"}),
    Bug("shortcut forgotten on the way back", layers.inverted_residual_backward,
        "dx + dout", "dx", "layers/inverted_residual", {"term"}),
    Bug("shortcut's gradient sent through the block twice", layers.inverted_residual_backward,
        "dx + dout", "2 * dx", "layers/inverted_residual", {"term"}),
    Bug("max-pool gradient to every cell", layers.max_pool_backward,
        "taken *= left", "taken = dout[photos] / K**2",
        "layers/max_pool K=2 stride=2 floor", {"mask"}),
    Bug("average-pool gradient not divided", layers.average_pool_backward,
        "dout / K**2", "dout", "layers/average_pool K=2 stride=2", {"factor"}),
    Bug("temperature forgotten on the way back", layers.vocabulary_backward_factors,
        "scale = scale / temperature", "scale = scale / 1", "layers/vocabulary at a temperature", {"factor"}),
    Bug("smoothing's share of the other words lost", vocabulary._smooth,
        "error -= smoothing / error.shape[1]", "error -= 0 * error", "layers/vocabulary smoothing", {"term"}),
    Bug("smoothing's share of the target lost", vocabulary._smooth,
        "targets] += smoothing", "targets] += 0 * smoothing", "layers/vocabulary smoothing", {"block", "term"}),
    Bug("second use of the shared MLP forgotten", cbam.channel_gate_backward,
        "xp.concatenate([dscores, dscores])", "xp.concatenate([dscores, 0 * dscores])", "layers/channel_gate",
        {"block", "factor", "scattered", "term"}),
    Bug("mean over locations without its 1/L", cbam.channel_gate_backward,
        "/ (R * S)", "", "layers/channel_gate", {"term"}),
    Bug("maximum's gradient to every location", cbam.channel_gate_backward,
        "dmax * is_first", "dmax * (is_first | True)", "layers/channel_gate", {"term"}),
    Bug("channel's weight missing in the map's gradient", cbam.channel_gate_backward,
        "cache.weights[:, None, None] * dout", "dout", "layers/channel_gate", {"block"}),
    Bug("maximum's gradient to every channel", cbam.location_gate_backward,
        "dpooled[..., 1:] * is_first", "dpooled[..., 1:]", "layers/location_gate", {"term"}),
    Bug("mean over channels without its 1/C", cbam.location_gate_backward,
        "dpooled[..., :1] / C", "dpooled[..., :1]", "layers/location_gate", {"term"}),
    Bug("sigmoid's derivative forgotten in the channels' gate", cbam.channel_gate_backward,
        "sigmoid_backward((dout * cache.x).sum(axis=(1, 2)), cache.gate)", "(dout * cache.x).sum(axis=(1, 2))",
        "layers/channel_gate", {"mask", "term"}),
    Bug("mean's and maximum's gradients exchanged", cbam.channel_gate_backward,
        "dpooled[:N, None] / (R * S), dpooled[N:, None]", "dpooled[N:, None] / (R * S), dpooled[:N, None]",
        "layers/channel_gate", {"term"}),
    Bug("ReLU of the shared MLP forgotten on the way back", cbam.channel_gate_backward,
        "relu_backward(dhidden, cache.relu)", "dhidden", "layers/channel_gate", {"block", "term"}),
    Bug("location's weight missing in the map's gradient", cbam.location_gate_backward,
        "cache.weights * dout", "dout", "layers/location_gate", {"term"}),
    Bug("mean's gradient lost in the locations' gate", cbam.location_gate_backward,
        "dpooled[..., :1] / C + ", "", "layers/location_gate", {"term"}),
    Bug("location's gate left out on the way back", cbam.cbam_backward,
        "*channel_gate_backward(dx, ", "*channel_gate_backward(dout, ", "layers/cbam", {"block", "term"}),
    Bug("map missing in the gradient of its channels' weights", cbam.channel_gate_backward,
        "(dout * cache.x).sum(axis=(1, 2))", "dout.sum(axis=(1, 2))", "layers/channel_gate", {"block", "term"}),
    Bug("other locations' 1 - p lost", noisy_or._noisy_or_gradient,
        "xp_of(z).exp(-S) * ", "", "layers/noisy_or", {"term"}),
    Bug("the most certain location gets all of the gradient", layers.noisy_or_backward,
        "_noisy_or_gradient(dp[:, None], z, S[:, None])",
        "_noisy_or_gradient(dp[:, None], z, S[:, None]) * (z == z.max(axis=1, keepdims=True))", "layers/noisy_or", {"term"}),
    Bug("absent words forgotten", noisy_or._noisy_or_loss_gradient,
        "(1 - y) * sigmoid(z) - ", "-", "layers/noisy_or_loss", {"scattered"}),
    Bug("-log p's gradient as if there were one location", noisy_or._noisy_or_loss_gradient,
        "z - _softplus(z) - S - log_p", "-_softplus(z)", "layers/noisy_or_loss", {"scattered"}),
    Bug("logistic loss summed over the photos", layers.noisy_or_loss_backward,
        "dloss / len(z)", "dloss", "layers/noisy_or_loss", {"factor"}),
    Bug("both parts of the gradient rounded to 0", noisy_or._noisy_or_loss_gradient,
        "xp_of(z).exp(z - _softplus(z) - S - log_p)", "sigmoid(z) / (xp_of(z).exp(S) - 1)",
        "layers/noisy_or_loss far below 0", {"non-finite"}),
    Bug("i and g swapped", layers.lstm_cell_backward,
        "(di, df, do, dg, None)", "(dg, df, do, di, None)", "layers/lstm_cell", {"block"}),
    Bug("memory's gradient from h = o * c lost", lstm_without_tanh._gradient_without_tanh,
        "dc = dc + dh * o", "dc = dc + 0 * dh", "layers/lstm_cell_without_tanh", {"block", "term"}),
    Bug("memory before in place of c in the output gate's gradient", lstm_without_tanh._gradient_without_tanh,
        "do = dh * (f * c_prev + i * g)", "do = dh * c_prev", "layers/lstm_cell_without_tanh", {"block"}),
    Bug("cell's own gradient lost", lstm._cell_gradient,
        "dc = dc + dh * o", "dc = dh * o", "layers/lstm_cell", {"block", "term"}),
    Bug("tanh' taken at tanh(c) once more", lstm._cell_gradient,
        "1 - tanh_c * tanh_c", "1 - xp_of(dc).tanh(tanh_c) * xp_of(dc).tanh(tanh_c)", "layers/lstm_cell", {"block", "term"}),
    Bug("beta forgotten", layers.gate_backward,
        "dz * beta", "dz", "layers/gate scalar", {"term"}),
    Bug("scores' query of the last location only", layers.additive_query_backward,
        "np.vecmat(dscores[rows], slopes, out=dquery[rows])", "dquery[rows] = dscores[rows, -1:] * slopes[:, -1]",
        "layers/additive_scores", {"term"}),
    Bug("sign of the tanh derivative", layers.additive_keys_backward,
        "R -= R * R", "R[...] = R * R - R", "layers/additive_scores", {"sign"}),
    Bug("steps and photos exchanged in the queries", layers.additive_steps_backward,
        "cache.query.reshape(-1, N, len(cache.v))", "cache.query.reshape(N, -1, len(cache.v)).swapaxes(0, 1)",
        "layers/additive_steps", {"term", "block"}),
    Bug("queries' gradient from the last location only", layers.additive_keys_backward,
        "np.vecmat(d.T, R", "np.vecmat(d.T[:, -1:], R[-1:]", "layers/additive_steps", {"term"}),
    Bug("mean annotation not divided by L", initial_state._of_each_location,
        "(dmean_h + dmean_c) / L", "dmean_h + dmean_c", "layers/initial_state", {"factor"}),
    Bug("c_0 forgotten", layers.initial_state_backward,
        "tanh_gradient(dc, cache.c)", "0 * dc", "layers/initial_state", {"zero", "term"}),
    Bug("context of the output layer forgotten", layers.deep_output_backward,
        "dz = dpre @ L_z.T", "dz = 0 * z", "layers/deep_output", {"zero"}),
    Bug("sign of the penalty", penalty._spread,
        "mask * (", "-mask * (", "layers/doubly_stochastic", {"sign"}),
    Bug("mean over all locations for the mean over those present", layers.masked_mean_backward,
        "share[:, :, None]", "(share > 0)[:, :, None] / share.shape[1]", "layers/masked_mean", {"term"}),
    Bug("mask forgotten on the way back of the mean", layers.masked_mean_backward,
        "share[:, :, None]", "(0 * share + share.max(axis=1, keepdims=True))[:, :, None]", "layers/masked_mean", {"mask"}),
    Bug("penalty of padded steps", layers.doubly_stochastic_backward,
        "mask[:, :, None]", "(0 * mask[:, :, None] + 1)", "layers/doubly_stochastic", {"mask"}),
    Bug("gradient along x kept behind its normalisation", ranking.normalise_backward,
        "(dout - (dout * out).sum(axis=1, keepdims=True) * out)", "dout", "layers/normalise", {"term"}),
    Bug("norm forgotten on the way back", ranking.normalise_backward,
        " / norm", "", "layers/normalise", {"term"}),
    Bug("every location gets the gradient of the best", ranking.alignment_backward,
        "best[:, None] == xp.arange(L).reshape(1, L, 1, 1)", "best[:, None] + 0 * xp.arange(L).reshape(1, L, 1, 1) >= 0",
        "layers/alignment", {"term", "mask"}),
    Bug("padded words align too on the way back", ranking.alignment_backward,
        "dS[:, :, None] * mask", "dS[:, :, None] + 0 * mask", "layers/alignment", {"mask", "scattered"}),
    Bug("gradient of the true pair lost", ranking.ranking_loss_backward,
        "xp.diag(of_photos.sum(axis=1) + of_sentences.sum(axis=0))", "0", "layers/ranking_loss", {"scattered"}),
    Bug("true pair's gradient over the wrong axis", ranking.ranking_loss_backward,
        "of_photos.sum(axis=1) + of_sentences.sum(axis=0)", "of_photos.sum(axis=0) + of_sentences.sum(axis=1)",
        "layers/ranking_loss", {"scattered"}),
    Bug("other sentences' loss only", ranking.ranking_loss_backward,
        "of_photos + of_sentences - xp.diag(of_photos.sum(axis=1) + of_sentences.sum(axis=0))",
        "of_photos - xp.diag(of_photos.sum(axis=1))", "layers/ranking_loss", {"scattered"}),
    Bug("temperature forgotten on the way back of the words' loss", vocabulary.word_loss_backward,
        "cache.weights / cache.temperature", "cache.weights", "layers/word_loss smoothing", {"factor"}),
    Bug("region named without its probability", slots.slots_backward,
        "xp.exp(named[c][:, :, j] - log_p[:, y, None])", "xp.exp(named[c][:, :, j])", "layers/slots", {"term"}),
    Bug("sentinel's share of the words forgotten", slots.slots_backward,
        "[dregions, dtext.sum(axis=1, keepdims=True)]", "[dregions, 0 * dtext[:, :1]]", "layers/slots", {"term"}),
    Bug("only the diagonal of the pointer's Jacobian", slots.slots_backward,
        "xp.exp(log_pointer) * dlog_pointer.sum(axis=1, keepdims=True)", "xp.exp(log_pointer) * dlog_pointer",
        "layers/slots", {"term"}),
    Bug("class probability not divided", slots.slots_backward,
        "total / xp.maximum(classes[:, :, c], LEAST)", "total", "layers/slots", {"term"}),
    Bug("forms of a class independent on the way back", slots.slots_backward,
        "dnamed - forms[c] * total[:, :, None]", "dnamed", "layers/slots", {"mask", "term"}),
    Bug("plural's gradient from the singular forms too", slots.slots_backward,
        "            if b:\n", "            if b >= 0:\n", "layers/slots", {"term"}),
    Bug("words of the text learn from the visual words", slots.slots_backward,
        "dtext - q * dlog_pointer[:, k:]", "dtext - q * dlog_p.sum(axis=1, keepdims=True)", "layers/slots", {"term"}),
    Bug("regions of the same word: the last one only", slots.slots_backward,
        "dregions += total", "dregions = total", "layers/slots", {"term"}),
]  # fmt: skip
