"""Wrong solutions as students write them: edits of the model solution, and the kinds that name each of them rightly.

They are not the table that the grader looks mistakes up in (lessons/assignments/mistakes.py): many make a mistake of that
table in another place or by other code, some two at once, some one that is not in it. VARIANTS are right, written otherwise.
"""

from typing import NamedTuple

from lessons.assignments import cut
from lessons.assignments.choices import bound_backward, choices_backward
from lessons.assignments.declare import Edit
from lessons.assignments.fast import all_scores_backward, all_scores_forward
from lessons.assignments.look import look_backward, look_forward
from lessons.assignments.mistakes import body
from lessons.assignments.through_time import lstm_backward, lstm_forward
from lessons.assignments.whole import captioner_backward, captioner_forward, train, word_backward, word_forward
from satnp.estimators.gumbel import draw
from satnp.estimators.rewards import after, leave_one_out, moving_average, to_go, total
from satnp.estimators.score_function import entropy, entropy_gradient, local_expectation, reinforce
from satnp.layers.attention import (
    additive_scores_backward,
    additive_scores_forward,
    context_backward,
    context_forward,
)
from satnp.layers.conv import conv2d_backward, conv2d_backward_input, conv2d_backward_weights, conv2d_forward
from satnp.layers.deep_output import deep_output_backward, deep_output_forward
from satnp.layers.embedding import embedding_backward
from satnp.layers.gate import gate_backward
from satnp.layers.initial_state import _of_each_location, initial_state_backward
from satnp.layers.lstm import lstm_cell_backward, lstm_cell_forward
from satnp.layers.penalty import doubly_stochastic_backward, doubly_stochastic_forward
from satnp.layers.pool import (
    average_pool_backward,
    average_pool_forward,
    max_pool_backward,
    max_pool_forward,
)
from satnp.layers.softmax import cross_entropy_backward, cross_entropy_forward, softmax_backward, softmax_forward


class Mutant(NamedTuple):
    """`kind` must be told of it, and nothing that is not in `kind` and `also`."""

    name: str
    kind: str
    edits: tuple
    also: tuple = ()


def submission(assignment, edits):
    """{file: text} of the model solution with `edits` in it."""
    return cut.package(assignment, edits=edits)


A1 = (
    Mutant("a sign", "sign", (Edit(conv2d_backward, "return dx, dW, db", "return -dx, dW, db"),)),
    Mutant("db a mean over everything", "size", (
        Edit(conv2d_backward, "return dx, dW, db", "return dx, dW, dout.mean(axis=(0, 1, 2))"),
    )),
    Mutant("dW a mean over the batch", "size", (
        Edit(conv2d_backward, "return dx, dW, db", "return dx, dW / len(dout), db"),
    )),
    Mutant("db over the batch alone", "batch", (
        Edit(conv2d_backward, "return dx, dW, db", "return dx, dW, dout.sum(axis=0)"),
    ), ("shape",)),
    Mutant("one photo is enough", "batch", (
        Edit(conv2d_backward, "    dW, db = conv",
             "    dout = dout[:1]\n    cache = cache._replace(x=cache.x[:1])\n    dW, db = conv"),
        Edit(conv2d_backward, "dx = conv2d_backward_input(dout, cache)", "dx = np.zeros_like(cache.x)")
    ), ("shape", "zero")),
    Mutant("W's channels exchanged", "transposed", (
        Edit(conv2d_backward, "return dx, dW, db", "return dx, dW.swapaxes(2, 3), db"),
    )),
    Mutant("a true convolution", "flipped", (
        Edit(conv2d_forward, "    return _corr", "    W = np.flip(W, axis=(0, 1))\n    return _corr"),
    ), ("forward",)),
    Mutant("dx with W as it is", "flipped", (
        Edit(conv2d_backward_input, "    xp, (N, R", "    W = W[::-1, ::-1]\n    xp, (N, R"),
    )),
    Mutant("padding cut off at the far side only", "padding", (
        Edit(conv2d_backward_input, "dx[:, padding : padding + R, padding : padding + S]",
             "dx[:, : dx.shape[1] - 2 * padding, : dx.shape[2] - 2 * padding]"),
    )),
    Mutant("overlaps of a pool lost", "overlap", (Edit(average_pool_backward, "+= dout / K**2", "= dout / K**2"),)),
    Mutant("overlaps of a maximum lost", "overlap", (
        body(max_pool_backward, """
x, out, K, stride, _ = cache
P, Q = out.shape[1:3]
padded = _pad_far(x, K, stride, P, Q, -np.inf)
dx = np.zeros(padded.shape, dtype=dout.dtype)
for n, p, q, c in np.ndindex(out.shape):
    cells = padded[n, p * stride : p * stride + K, q * stride : q * stride + K, c]
    i, j = np.unravel_index(cells.argmax(), cells.shape)
    dx[n, p * stride + i, q * stride + j, c] = dout[n, p, q, c]
return dx[:, : x.shape[1], : x.shape[2]]
"""),
    )),
    Mutant("the mean of K", "size", (Edit(average_pool_forward, "/ K**2", "/ K"),), ("forward", "factor")),
    Mutant("a sum for a mean", "size", (Edit(average_pool_backward, "dout / K**2", "dout"),)),
    Mutant("padded with zeros", "padding", (
        Edit(max_pool_forward, "Q, -xp.inf)", "Q, 0)"),
        Edit(max_pool_backward, "Q, -xp.inf)", "Q, 0)")
    ), ("forward",)),
    Mutant("x is padded in place", "mutation", (
        Edit(max_pool_forward, "    xp, (N", "    x -= 1e-3\n    xp, (N"),
    ), ("term", "forward")),
    Mutant("dout is divided in place", "mutation", (
        Edit(average_pool_backward, "    _, P, Q", "    dout /= K**2\n    _, P, Q"),
        Edit(average_pool_backward, "+= dout / K**2", "+= dout")
    )),
    Mutant("float64 whatever comes", "dtype", (Edit(average_pool_backward, "dtype=dout.dtype", "dtype=float"),)),
    Mutant("float32 on the way", "dtype", (
        Edit(average_pool_backward, "+= dout / K**2", "+= (dout / K**2).astype(np.float32)"),
    )),
    Mutant("every cell of the window", "spread", (
        body(max_pool_backward, """
x, out, K, stride, _ = cache
P, Q = out.shape[1:3]
dx = np.zeros_like(_pad_far(x, K, stride, P, Q, 0))
for i, j in _offsets(K):
    dx[:, window(i, stride, P), window(j, stride, Q)] += dout
return dx[:, : x.shape[1], : x.shape[2]]
"""),
    )),
)  # fmt: skip

A2 = (
    Mutant("no c-path", "c-path", (Edit(lstm_backward, "(live * dh, live * dc)", "(live * dh, 0 * dc)"),)),
    Mutant("c-path only where the sentence is over", "c-path", (
        Edit(lstm_backward, "        dc = dc_prev + (1 - live) * dc", "        dc = dc - live * dc"),
    )),
    Mutant("dc not added in the cell", "c-path", (
        Edit(lstm_cell_backward, "_cell_gradient(dh, dc,", "_cell_gradient(dh, dc * 0,"),
    )),
    Mutant("no h-path", "h-path", (Edit(lstm_backward, "dgates @ W_h.T", "0"),)),
    Mutant("h does not tell c", "h-path", (
        body(lstm_cell_backward, """
(dh, dc), H = dout, cache.i.shape[1]
i, f, o, g = cache.i, cache.f, cache.o, cache.g
dgates = np.concatenate([dc * g * i * (1 - i), dc * cache.c_prev * f * (1 - f), dh * cache.tanh_c * o * (1 - o),
                         dc * i * (1 - g * g)], axis=1)
return dgates, dc * f
"""),
    )),
    Mutant("f forgets c_prev", "gate", (
        Edit(lstm_cell_backward, "    return dgates", "    df[...] /= 1 + cache.c_prev\n    return dgates"),
    )),
    Mutant("g as a sigmoid on the way back", "gate", (
        Edit(lstm_cell_backward, "    return dgates",
             "    dg[...] *= cache.g * (1 - cache.g) / (1 - cache.g**2)\n    return dgates"),
    )),
    Mutant("o gets nothing", "gate", (Edit(lstm_cell_backward, "    return dgates", "    do *= 0\n    return dgates"),)),
    Mutant("g before o", "gate", (
        Edit(lstm_cell_forward, "    parts = [",
             "    gates = gates.reshape(-1, 4, H)[:, [0, 1, 3, 2]].reshape(len(gates), -1)\n    parts = ["),
        Edit(lstm_cell_backward, "    return dgates",
             "    dgates = dgates.reshape(N, 4, H)[:, [0, 1, 3, 2]].reshape(N, -1)\n    return dgates")
    )),
    Mutant("no slope of tanh(c)", "slope", (
        body(lstm_cell_backward, """
dh, dc = dout
c_prev, i, f, o, g, tanh_c = cache
dc = dc + dh * o
parts = dc * g * i * (1 - i), dc * c_prev * f * (1 - f), dh * tanh_c * o * (1 - o), dc * i * (1 - g**2)
return np.concatenate(parts, axis=1), dc * f
"""),
    )),
    Mutant("h of this step for W_h", "step", (
        Edit(lstm_forward, "        before.append(h)\n", ""),
        Edit(lstm_forward, "        out.append(h)\n", "        out.append(h)\n        before.append(h)\n")
    ), ("size", "factor")),
    Mutant("gradients of one step early", "step", (
        Edit(lstm_backward, "dh + dout[t]", "dh + (dout[t - 1] if t else dout[0])"),
    )),
    Mutant("x of the step before", "step", (Edit(lstm_backward, "dW_x += x[t].T", "dW_x += np.roll(x, 1, axis=0)[t].T"),)),
    Mutant("the last step alone", "steps", (
        Edit(lstm_backward, "    return dx, dW_x, dW_h, db",
             "    dW_x, db = x[t].T @ dgates, dgates.sum(axis=0)\n    return dx, dW_x, dW_h, db"),
    )),
    Mutant("means over the batch", "size", (
        Edit(lstm_backward, "    return dx, dW_x, dW_h, db",
             "    dW_x, dW_h, db = (d / x.shape[1] for d in (dW_x, dW_h, db))\n    return dx, dW_x, dW_h, db"),
    )),
    Mutant("db of one sentence", "batch", (Edit(lstm_backward, "dgates.sum(axis=0)", "dgates[0, :]"),)),
    Mutant("db not summed", "batch", (Edit(lstm_backward, "db += dgates.sum(axis=0)", "db = db + dgates"),), ("shape",)),
    Mutant("dW_x the other way round", "transposed", (
        Edit(lstm_backward, "return dx, dW_x,", "return dx, dW_x.T.copy(),"),
    )),
    Mutant("no mask at all", "mask", (
        Edit(lstm_forward, "    h, c, out", "    mask = np.ones_like(mask)\n    h, c, out"),
    ), ("forward",)),
    Mutant("no mask on the way back", "mask", (
        Edit(lstm_backward, "    xp = xp_of(x)", "    xp, mask = xp_of(x), np.ones_like(mask)"),
    )),
    Mutant("a sentence that is over forgets", "mask", (Edit(lstm_backward, "+ (1 - live) * dh", ""),)),
    Mutant("signs of what goes back", "sign", (Edit(lstm_backward, "db, dh, dc\n", "db, -dh, dc\n"),)),
    Mutant("twice through W_h", "factor", (Edit(lstm_backward, "    return dx,", "    dW_h *= 2\n    return dx,"),)),
    Mutant("gates in place", "mutation", (
        Edit(lstm_cell_forward, "    h, c, *made", "    gates *= 1.0 + 1e-14\n    h, c, *made"),
    )),
    Mutant("dout in place", "mutation", (
        Edit(lstm_backward, "        live, dh = mask[t][:, None], dh + dout[t]",
             "        dout[t] += dh\n        live, dh = mask[t][:, None], dout[t]"),
    )),
    Mutant("zeros of float64", "dtype", (Edit(lstm_backward, "xp.zeros_like(a) for a in", "xp.zeros(a.shape) for a in"),)),
    Mutant("two at once", "gate", (
        Edit(lstm_cell_backward, "    return dgates, dc_prev", "    di *= 0\n    return dgates, -dc_prev"),
    ), ("sign",)),
    Mutant("no c-path in float32", "c-path", (
        Edit(lstm_backward, "    return dx, dW_x, dW_h, db, dh, dc",
             "    return tuple(d.astype(np.float32) for d in (dx, dW_x, dW_h, db, dh, dc))"),
        Edit(lstm_backward, "dc = dc_prev + (1 - live) * dc", "dc = xp.zeros_like(dc)")
    ), ("dtype",)),
)  # fmt: skip

A3 = (
    Mutant("only the diagonal", "diagonal", (
        Edit(softmax_backward, "    return", "    return alpha * (1 - alpha) * dalpha\n    return"),
    )),
    Mutant("the diagonal, place by place", "diagonal", (
        body(softmax_backward, """
(alpha,) = cache
dscores = np.zeros_like(alpha)
for n, i in np.ndindex(alpha.shape):
    dscores[n, i] = dalpha[n, i] * (alpha[n, i] - alpha[n, i] ** 2)
return dscores
"""),
    )),
    Mutant("a mean in place of the sum", "size", (
        Edit(softmax_backward, "softmax_gradient(dalpha, alpha)", "softmax_gradient(dalpha, alpha) / alpha.shape[1]"),
    )),
    Mutant("no shift", "shift", (
        body(softmax_forward, """
alpha = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
return alpha, SoftmaxCache(alpha)
"""),
    ), ("error",)),
    Mutant("beta's path to h lost", "beta", (
        Edit(look_backward, "    dscores = ", "    dh_gate = np.zeros_like(dh_gate)\n    dscores = "),
    )),
    Mutant("beta left out on the way back", "beta", (Edit(gate_backward, "return dh, dcontext,", "return dh, dz,"),)),
    Mutant("beta from the context", "term", (Edit(gate_backward, "dh = dpre @ W.T", "dh = dpre @ W.T * beta[:, :1]"),)),
    Mutant("the penalty is not heard", "penalty", (
        Edit(look_backward, "    dz, dalpha = dout", "    dz, dalpha = dout[0], 0"),
    )),
    Mutant("the penalty after the softmax", "penalty", (
        Edit(look_backward, "dalpha + dalpha_context", "dalpha_context"),
        Edit(look_backward, "    dkeys, dquery", "    dscores += dalpha\n    dkeys, dquery")
    )),
    Mutant("the keys are not heard", "path", (
        Edit(look_backward, "    return dannotations + drows", "    drows *= 0\n    return dannotations + drows"),
    )),
    Mutant("the context twice, the keys not at all", "path", (
        Edit(look_backward, "return dannotations + drows.reshape(dannotations.shape)", "return 2 * dannotations"),
    )),
    Mutant("one tanh too many", "function", (
        Edit(additive_scores_forward, "    return scores, cache", "    return np.tanh(scores), cache"),
    ), ("forward",)),
    Mutant("alpha is in dalpha", "factor", (
        Edit(context_backward, "    return context_weights_backward(dcontext, annotations),",
             "    return alpha * context_weights_backward(dcontext, annotations),"),
    )),
    Mutant("the query of one place", "locations", (
        Edit(additive_scores_backward, "additive_query_backward(dscores, cache)", "dkeys[:, 0]"),
    )),
    Mutant("the query not summed", "batch", (
        Edit(additive_scores_backward, "additive_query_backward(dscores, cache)", "dkeys"),
    ), ("error",)),
    Mutant("no slope of the sigmoid", "slope", (
        body(gate_backward, """
h, context, W, beta = cache
dpre = dz * context
if W.shape[1] == 1:
    dpre = dpre.sum(axis=1, keepdims=True)
return dpre @ W.T, dz * beta, h.T @ dpre, dpre.sum(axis=0)
"""),
    )),
    Mutant("a mean over the batch in the gate", "size", (Edit(gate_backward, "dpre.sum(axis=0)", "dpre.mean(axis=0)"),)),
    Mutant("the first of the batch alone", "batch", (
        Edit(gate_backward, "    dh = dpre @ W.T\n", "    dh = dpre @ W.T\n    h, dpre = h[:1], dpre[:1]\n"),
    )),
    Mutant("the mask is not looked at", "mask", (
        Edit(doubly_stochastic_backward, "    excess, mask = cache\n",
             "    excess, mask = cache\n    mask = np.ones_like(mask)\n"),
    )),
    Mutant("no mask in both", "mask", (
        Edit(doubly_stochastic_forward, "    excess = (mask", "    mask = np.ones_like(mask)\n    excess = (mask"),
    ), ("forward",)),
    Mutant("the sum over the batch", "size", (
        Edit(doubly_stochastic_forward, "squares / excess.shape[0]", "squares"),
        Edit(doubly_stochastic_backward, "2 / excess.shape[0]", "2")
    ), ("forward",)),
    Mutant("half of the square's slope", "factor", (
        Edit(doubly_stochastic_backward, "2 / excess", "1 / excess"),
    ), ("size",)),
    Mutant("the sign of what is missing", "sign", (Edit(doubly_stochastic_backward, "dpenalty, 2 /", "dpenalty, -2 /"),)),
    Mutant("dW_s the other way round", "transposed", (Edit(look_backward, "dW_a, dW_s, db,", "dW_a, dW_s.T.copy(), db,"),)),
    Mutant("query added to the keys in place", "mutation", (
        body(additive_scores_forward, """
keys += query[:, None]
return np.tanh(keys) @ v + c, AdditiveCache(keys.copy(), 0 * query, v, F)
"""),
    )),
    Mutant("the alphas of float64", "dtype", (
        Edit(softmax_forward, "    alpha = softmax(scores)", "    alpha = softmax(scores.astype(float))"),
    )),
    Mutant("no context in float32", "path", (
        Edit(look_backward, "return dannotations + drows.reshape(dannotations.shape),",
             "return drows.reshape(dannotations.shape).astype(np.float32),"),
    ), ("dtype",)),
)  # fmt: skip

A4 = (
    Mutant("dE[ids] += dout", "repeated", (
        body(embedding_backward, """
ids, shape = cache
dE = np.zeros(shape, dtype=dout.dtype)
dE[ids] += dout
return dE
"""),
    )),
    Mutant("the first occurrence wins", "repeated", (
        body(embedding_backward, """
ids, shape = cache
dE = np.zeros(shape, dtype=dout.dtype)
for word, d in list(zip(ids, dout))[::-1]:
    dE[word] = d
return dE
"""),
    )),
    Mutant("repeated ids and float64", "repeated", (
        body(embedding_backward, """
ids, shape = cache
dE = np.zeros(shape)
dE[ids] = dout
return dE
"""),
    ), ("dtype",)),
    Mutant("padding counts in the words", "mask", (
        Edit(cross_entropy_backward, "    scale = (dloss", "    weights = np.ones_like(weights)\n    scale = (dloss"),
    )),
    Mutant("no one-hot", "target", (
        body(cross_entropy_backward, """
p, targets, weights, _ = cache
return p * weights[:, None] * dloss
"""),
    )),
    Mutant("the sign of the loss", "sign", (
        Edit(cross_entropy_forward, "loss = -(weights", "loss = (weights"),
    ), ("forward",)),
    Mutant("a mean over the words", "size", (
        Edit(cross_entropy_forward, "(weights * log_p).sum()", "(weights * log_p).mean()"),
        Edit(cross_entropy_backward, "(dloss * weights)", "(dloss * weights / len(p))")
    ), ("forward", "batch")),
    Mutant("not shared out over the places", "size", (Edit(_of_each_location, " / L", ""),)),
    Mutant("h and c exchanged", "path", (Edit(initial_state_backward, "    dh, dc = dout", "    dc, dh = dout"),)),
    Mutant("one state alone tells the photo", "path", (
        Edit(initial_state_backward, "    dmean = _of_each",
             "    dmean_c = 0 * dmean_h\n    dmean = _of_each"),
    )),
    Mutant("no slope of the tanh", "slope", (
        Edit(deep_output_backward, "dpre = tanh_gradient(dout, out)", "dpre = dout.copy()"),
    )),
    Mutant("1 - tanh", "slope", (Edit(deep_output_backward, "dpre = tanh_gradient(dout, out)", "dpre = dout * (1 - out)"),)),
    Mutant("b of the deep output as a mean", "size", (Edit(deep_output_backward, "dpre.sum(axis=0)", "dpre.mean(0)"),)),
    Mutant("L_z the other way round", "transposed", (
        Edit(deep_output_backward, "dL_z = z.T @ dpre", "dL_z = dpre.T @ z"),
    ), ("error", "shape")),
    Mutant("z changed in place", "mutation", (
        Edit(deep_output_forward, "    out = tanh", "    words += b\n    out = tanh"),
        Edit(deep_output_forward, "z @ L_z, b)", "z @ L_z, 0 * b)")
    )),
    Mutant("targets are what is read", "step", (
        Edit(captioner_forward, "    for t in range(T)",
             "    captions = np.concatenate([captions[:, :1], captions[:, :-1]], axis=1)\n    for t in range(T)"),
    ), ("forward",)),
    Mutant("what is said is read", "step", (
        Edit(captioner_forward,
             "    for t in range(T):\n        (logits, h, c, alpha), word = word_forward(annotations, captions[:, t],",
             "    for t in range(T):\n"
             "        (logits, h, c, alpha), word = word_forward(annotations, np.roll(captions, -1, axis=1)[:, t],"),
    ), ("forward",)),
    Mutant("no mask", "mask", (
        Edit(captioner_forward, "    p, N, T = Weights(*weights), len(mask), mask.shape[1]",
             "    p, N, T = Weights(*weights), len(mask), mask.shape[1]\n    mask = np.ones_like(mask)"),
    ), ("forward",)),
    Mutant("no mask in the words", "mask", (
        Edit(captioner_forward, "mask[:, t] / N", "np.full(N, 1 / N)"),
    ), ("forward", "dtype")),
    Mutant("a sum over the captions", "batch", (Edit(captioner_forward, "mask[:, t] / N", "mask.T[t]"),), ("forward",)),
    Mutant("the penalty is not heard", "penalty", (
        Edit(captioner_backward, "    grads = Weights(*map",
             "    dalphas = np.zeros_like(dalphas)\n    grads = Weights(*map"),
    )),
    Mutant("no penalty at all", "penalty", (
        Edit(captioner_forward, "    return loss + penalty,", "    penalty = 0 * penalty\n    return loss + penalty,"),
    ), ("forward",)),
    Mutant("the penalty twice", "penalty", (
        Edit(captioner_backward, "dalphas = doubly_stochastic_backward(dloss, doubly)",
             "dalphas = 2 * doubly_stochastic_backward(dloss, doubly)"),
    )),
    Mutant("the penalty of the step after", "step", (
        Edit(captioner_backward, "    dh = dc", "    dalphas = np.roll(dalphas, 1, axis=0)\n    dh = dc"),
    )),
    Mutant("no c-path", "c-path", (Edit(captioner_backward, "dseen, dh, dc, more", "dseen, dh, _, more"),)),
    Mutant("no h-path", "h-path", (
        Edit(word_backward, "    M, H = ", "    H, dh = dh.shape[1], np.zeros_like(dh)\n    M, H = "),
    )),
    Mutant("the look tells h nothing", "path", (
        Edit(word_backward, "    dE = embedding", "    dh_look *= 0\n    dE = embedding"),
    )),
    Mutant("the deep output tells z nothing", "path", (
        Edit(word_backward, "    dgates, dc = lstm", "    dz = dz * 0\n    dgates, dc = lstm"),
    )),
    Mutant("the gates tell E nothing", "path", (
        Edit(word_backward, "    dE = embedding_backward(dEy", "    dE = embedding_backward(dEy - dx[:, :M]"),
    )),
    Mutant("the first step alone", "steps", (
        Edit(captioner_backward, "        grads = Weights(*(g + m for g, m in zip(grads, more, strict=True)))",
             "        grads = more"),
    ), ("error",)),
    Mutant("W_z as a mean", "size", (
        Edit(word_backward, "    dEy, dh, dz = dEy", "    dW_z = dW_z / len(dh)\n    dEy, dh, dz = dEy"),
    )),
    Mutant("c-path in float32", "c-path", (
        Edit(word_backward, "(dh + dh_out, dc)", "(dh + dh_out, dc * 0)"),
        Edit(captioner_backward, "    return dannotations + dmean, *grads",
             "    return tuple(np.asarray(g, np.float32) for g in (dannotations + dmean, *grads))")
    ), ("dtype",)),
    Mutant("it does not learn", "score", (Edit(train, "        adam(", "        0 and adam("),)),
    Mutant("it reads what it says one late", "score", (
        Edit(train, "        words = logits.argmax(axis=1)\n        said.append(words)",
             "        said.append(words)\n        words = logits.argmax(axis=1)"),
    )),
)  # fmt: skip

A5 = (
    Mutant("the likeliest place", "draw", (
        Edit(draw, "    chosen = (scores + gumbel)",
             "    gumbel = np.zeros_like(gumbel)\n    chosen = (scores + gumbel)"),
    )),
    Mutant("noise of the wrong sign", "draw", (
        Edit(draw, "    chosen = (scores", "    gumbel = -gumbel\n    chosen = (scores"),
    )),
    Mutant("whole numbers", "dtype", (Edit(draw, ".astype(gumbel.dtype)", ".astype(int)"),)),
    Mutant("padding in the reward", "mask", (body(total, "return np.zeros_like(log_p) + log_p.sum(axis=0)"),)),
    Mutant("the mean of the words", "size", (Edit(total, ".sum(axis=0)", ".mean(axis=0)"),)),
    Mutant("to go from the next step on", "step", (
        body(to_go, """
rewards = np.zeros_like(log_p)
for t in range(len(log_p)):
    rewards[t] = (mask * log_p)[t + 1 :].sum(axis=0)
return rewards
"""),
    )),
    Mutant("the past in place of the future", "step", (body(to_go, "return np.cumsum(mask * log_p, axis=0)"),)),
    Mutant("after with its own word", "step", (body(after, "return to_go(log_p, mask)"),)),
    Mutant("all images in the average", "mask", (
        Edit(moving_average, "    count = sampled.sum()",
             "    sampled = np.ones_like(sampled)\n    count = sampled.sum()"),
    )),
    Mutant("decay the wrong way round", "decay", (
        Edit(moving_average, "    count = ", "    decay = 1 - decay\n    count = "),
    )),
    Mutant("none sampled", "mean", (
        Edit(moving_average, "xp_of(reward).maximum(count, 1)", "count"),
        Edit(moving_average, "xp_of(reward).where(count > 0, decay * baseline + (1 - decay) * mean, baseline)",
             "decay * baseline + (1 - decay) * mean")
    )),
    Mutant("the mean of all samples", "own sample", (
        body(leave_one_out, "return np.broadcast_to(rewards.mean(axis=0), rewards.shape)"),
    )),
    Mutant("shared out over S", "size", (
        body(leave_one_out, """
baselines = np.zeros_like(rewards)
for k in range(len(rewards)):
    baselines[k] = np.delete(rewards, k, axis=0).sum(axis=0) / len(rewards)
return baselines
"""),
    )),
    Mutant("over the captions too", "axis", (
        body(leave_one_out, "return (rewards.sum() - rewards) / (rewards.size - 1)"),
    )),
    Mutant("it climbs the cost", "sign", (Edit(reinforce, "return -advantage", "return advantage"),)),
    Mutant("no alpha", "term", (Edit(reinforce, "(sample - alpha)", "(sample - 0 * alpha)"),)),
    Mutant("the sample's own weight alone", "diagonal", (
        body(reinforce, "return -advantage[..., None] * (sample - sample * alpha)"),
    )),
    Mutant("the advantage in place", "mutation", (
        Edit(reinforce, "    return -adv", "    advantage *= -1\n    return adv"),
    )),
    Mutant("no mean of what is ahead", "expectation", (
        body(local_expectation, "return -alpha * ahead - advantage[..., None] * (sample - alpha)"),
    )),
    Mutant("the log of alpha", "log", (
        body(entropy_gradient, """
log = np.log(alpha)
H = -(alpha * log).sum(axis=-1, keepdims=True)
return weight[..., None] * alpha * (log + H)
"""),
    )),
    Mutant("no H", "diagonal", (Edit(entropy_gradient, "(x - alpha * x.sum(axis=-1, keepdims=True))", "(x + 0 * alpha)"),)),
    Mutant("entropy that sharpens", "sign", (
        Edit(entropy_gradient, "    return weight", "    weight = -weight\n    return weight"),
    ), ("entropy",)),
    Mutant("a plain mean over the paths", "mean", (
        Edit(bound_backward, "    T = len(alpha)", "    T, p = len(alpha), np.full_like(p, 1 / len(p))"),
    )),
    Mutant("twice the reward", "factor", (Edit(bound_backward, "    return -dbound", "    return -2 * dbound"),)),
    Mutant("no baseline", "baseline", (Edit(choices_backward, "    share = ", "    advantage = rewards\n    share = "),)),
    Mutant("b with the own sample", "own sample", (
        Edit(choices_backward, "rewards - leave_one_out(rewards)", "rewards - sum(rewards) / S"),
    )),
    Mutant("padded steps hear", "mask", (
        Edit(choices_backward, "    share = ", "    mask = np.ones_like(mask)\n    share = "),
    )),
    Mutant("a sum over the samples", "size", (
        Edit(choices_backward, "    return reinforce", "    share = share * S\n    return reinforce"),
    )),
    Mutant("no entropy in float32", "entropy", (
        Edit(choices_backward, "    return reinforce(sample, alpha, share * advantage) + ",
             "    return reinforce(sample, alpha, share * advantage).astype(np.float32)\n    return "),
    ), ("dtype",)),
    Mutant("the log-likelihood of the first word", "reward", (
        Edit(choices_backward, "total(of_sample, mask)", "(mask * of_sample)[:1] + 0 * mask"),
    ), ("term",)),
)  # fmt: skip

A6 = (
    Mutant("the naive convolution", "slow", (
        body(conv2d_forward, """
from captioner.naive import naive_conv2d_forward
return naive_conv2d_forward(x, W, b, stride, padding)
"""),
        body(conv2d_backward, """
from captioner.naive import naive_conv2d_backward
return naive_conv2d_backward(dout, cache)
""")
    )),
    Mutant("the naive embedding", "slow", (
        body(embedding_backward, """
ids, shape = cache
dE = np.zeros(shape, dout.dtype)
for word, d in zip(ids, dout):
    dE[word] += d
return dE
"""),
    )),
    Mutant("fast and wrong", "repeated", (
        body(embedding_backward, """
ids, shape = cache
dE = np.zeros(shape, dout.dtype)
dE[ids] += dout
return dE
"""),
    ), ("wrong",)),
    Mutant("float32 for speed", "dtype", (
        Edit(all_scores_backward, "    return drows", "    drows = drows.astype(np.float32)\n    return drows"),
    ), ("wrong",)),
    Mutant("a mean over the batch", "size", (
        Edit(conv2d_backward, "return dx, dW, db", "return dx, dW / len(dout), db"),
    ), ("wrong",)),
    Mutant("the kernel turned around", "flipped", (
        Edit(conv2d_backward_input, "    xp, (N, R", "    W = np.flip(W, axis=(0, 1))\n    xp, (N, R"),
    ), ("wrong",)),
    Mutant("W_a of the last step", "steps", (
        body(all_scores_backward, """
(T, N, L), steps = cache.shape, cache.steps
grads = [additive_keys_backward(dscores[t][None], steps[t].query[None], steps[t]) for t in range(T)]
dkeys, dv = grads[-1][0], sum(grad[1] for grad in grads)
dquery = np.stack([additive_query_backward(dscores[t], steps[t]) for t in range(T)])
drows, dW_a, db = affine_backward(dkeys.reshape(N * L, -1), cache.keys)
dh, dW_s, _ = affine_backward(dquery.reshape(T * N, -1), cache.query)
return drows.reshape(N, L, -1), dh.reshape(T, N, -1), dW_a, dW_s, db, dv
"""),
    ), ("wrong",)),
    Mutant("annotations in place", "mutation", (
        Edit(all_scores_forward, "    keys, query = keys.reshape",
             "    annotations *= 1.0 + 1e-14\n    keys, query = keys.reshape"),
    )),
)  # fmt: skip

MUTANTS = {"A1": A1, "A2": A2, "A3": A3, "A4": A4, "A5": A5, "A6": A6}

# Written after the grader's rules and table: 10 of these 27 were told by their kind at first sight, 20 since then.
FRESH = {
    "A1": (
        Mutant("b a sum over the photos and one row", "window", (
            Edit(conv2d_backward, "return dx, dW, db", "return dx, dW, dout[:, 0].sum(axis=(0, 1))"),
        ), ("step", "term")),
        Mutant("dW with the wrong sign and half as large", "factor", (
            Edit(conv2d_backward, "return dx, dW, db", "return dx, -dW / 2, db"),
        )),
        Mutant("the stride forgotten on the way back", "stride", (
            Edit(conv2d_backward_input, "window(i, stride, P), window(j, stride, Q)", "window(i, 1, P), window(j, 1, Q)"),
        )),
        Mutant("a maximum that also tells the first cell", "spread", (
            Edit(max_pool_backward, "    return dx[", "    dx[:, ::stride, ::stride][:, :P, :Q] += dout\n    return dx["),
        )),
    ),
    "A2": (
        Mutant("c-path through tanh", "c-path", (
            Edit(lstm_backward, "dc = dc_prev + (1 - live) * dc", "dc = np.tanh(dc_prev) + (1 - live) * dc"),
        ), ("term",)),
        Mutant("the slope of i forgotten", "gate", (
            Edit(lstm_cell_backward, "    return dgates", "    di /= cache.i * (1 - cache.i)\n    return dgates"),
        )),
        Mutant("f and i exchanged on the way back", "gate", (
            Edit(lstm_cell_backward, "    return dgates", "    di[...], df[...] = df.copy(), di.copy()\n    return dgates"),
        )),
        Mutant("W_h of the last sentence alone", "batch", (
            Edit(lstm_backward, "before[t].T @ dgates", "before[t][-1:].T @ dgates[-1:]"),
        )),
        Mutant("the mask on dh alone", "mask", (
            Edit(lstm_backward, "(live * dh, live * dc)", "(dh, live * dc)"),
        )),
    ),
    "A3": (
        Mutant("diagonal with a sign", "diagonal", (
            Edit(softmax_backward, "    return", "    return alpha * (alpha - 1) * dalpha\n    return"),
        )),
        Mutant("beta's path with the wrong sign", "beta", (Edit(look_backward, "dh + dh_gate", "dh - dh_gate"),)),
        Mutant("beta's path twice", "beta", (Edit(look_backward, "dh + dh_gate", "dh + 2 * dh_gate"),)),
        Mutant("the tanh's slope forgotten", "slope", (body(additive_scores_backward, """
keys, query, v, F = cache
tanh = np.tanh(keys + query[:, None])
dpre = dscores[:, :, None] * v
return np.broadcast_to(dpre, keys.shape), dpre.sum(axis=1), np.einsum("nl,nla->a", dscores, tanh), dscores.sum().reshape(1)
"""),)),
        Mutant("the mask squared twice in the penalty", "size", (
            Edit(doubly_stochastic_backward, "2 / excess.shape[0]", "2 / excess.shape[1]"),
        ), ("term", "factor")),
    ),
    "A4": (
        Mutant("half of every repeated word", "repeated", (body(embedding_backward, """
ids, shape = cache
dE = np.zeros(shape, dtype=dout.dtype)
for word in set(ids.tolist()):
    dE[word] = dout[ids == word].mean(axis=0)
return dE
"""),)),
        Mutant("the penalty with the wrong sign", "penalty", (
            Edit(captioner_backward, "dalphas = doubly_stochastic_backward(dloss, doubly)",
                 "dalphas = -doubly_stochastic_backward(dloss, doubly)"),
        )),
        Mutant("dh of the step after twice", "h-path", (
            Edit(word_backward, "return dannotations, dh + dh_look", "return dannotations, 2 * dh + dh_look"),
        ), ("path",)),
        Mutant("the gradient clipped at one", "term", (
            Edit(word_backward, "    dE = embedding", "    dEy = np.clip(dEy, -0.01, 0.01)\n    dE = embedding"),
        ), ("scattered", "block")),
        Mutant("mask of the step after", "mask", (
            Edit(captioner_forward, "mask[:, t] / N", "np.roll(mask, -1, axis=1)[:, t] / N"),
        ), ("step", "forward")),
        Mutant("the first state of one network", "path", (
            Edit(initial_state_backward, "    dh, dc = dout", "    dh, dc = dout[0], 0 * dout[1]"),
        ), ("zero",)),
    ),
    "A5": (
        Mutant("a baseline of the own caption's mean word", "own sample", (
            Edit(choices_backward, "leave_one_out(rewards)", "rewards[:1]"),
        ), ("baseline", "zero")),
        Mutant("to go twice", "step", (Edit(to_go, "(mask * log_p)[::-1].cumsum(axis=0)[::-1]",
                                            "(mask * log_p)[::-1].cumsum(axis=0).cumsum(axis=0)[::-1]"),)),
        Mutant("the entropy twice", "entropy", (
            Edit(choices_backward, "entropy_weight * share)", "2 * entropy_weight * share)"),
        )),
        Mutant("the sign of the rewards", "baseline", (Edit(choices_backward, "share * advantage", "-share * advantage"),)),
        Mutant("what is ahead as it was", "expectation", (
            Edit(local_expectation, "- alpha * (ahead", "+ alpha * (ahead"),
        ), ("sign",)),
    ),
    "A6": (
        Mutant("fast and the first alone", "repeated", (body(embedding_backward, """
ids, shape = cache
words, first = np.unique(ids, return_index=True)
dE = np.zeros(shape, dout.dtype)
dE[words] = dout[first]
return dE
"""),), ("wrong",)),
        Mutant("one product with W as it is", "flipped", (
            Edit(conv2d_backward_input, "    xp, (N, R", "    W = np.rot90(W, 2)\n    xp, (N, R"),
        ), ("wrong",)),
    ),
}  # fmt: skip

# From a batch of 93 that was written from the handouts alone, after the rules: 85 of them were told by their kind at first
# sight, none by a wrong one, one got all points (the buffer).
UNSEEN = {
    "A1": (
        Mutant("patches laid over each other", "overlap", (body(average_pool_backward, """
(N, R, S, C), K, stride = cache
dx = np.zeros((N, R, S, C), dout.dtype)
for p, q in np.ndindex(dout.shape[1:3]):
    dx[:, p * stride : p * stride + K, q * stride : q * stride + K] = dout[:, p : p + 1, q : q + 1] / K**2
return dx
"""),)),
        Mutant("equal largest numbers share nothing", "ties", (body(max_pool_backward, """
x, out, K, stride, _ = cache
P, Q = out.shape[1:3]
padded = _pad_far(x, K, stride, P, Q, -np.inf)
dx = np.zeros(padded.shape, dtype=dout.dtype)
for i, j in np.ndindex(K, K):
    cells = slice(None), window(i, stride, P), window(j, stride, Q)
    dx[cells] += dout * (padded[cells] == out)
return dx[:, : x.shape[1], : x.shape[2]]
"""),)),
        Mutant("the padding below and right", "padding", (body(conv2d_forward, """
x_padded = np.pad(x, ((0, 0), (0, 2 * padding), (0, 2 * padding), (0, 0)))
out, _ = conv2d_forward(x_padded, W, b, stride, 0) if padding else (_correlate(x, W, b, stride, 0), 0)
return out, ConvCache(x, W, stride, padding)
"""),), ("forward", "border")),
        Mutant("every dout is laid K times", "stride", (body(average_pool_backward, """
shape, K, stride = cache
tall = dout.repeat(K, axis=1).repeat(K, axis=2) / K**2
dx = np.zeros(shape, dout.dtype)
R, S = min(shape[1], tall.shape[1]), min(shape[2], tall.shape[2])
dx[:, :R, :S] = tall[:, :R, :S]
return dx
"""),), ("part",)),
    ),
    "A2": (
        Mutant("c goes on after the end", "mask", (Edit(lstm_forward, "live * c_new + (1 - live) * c", "c_new"),),
               ("forward", "follows")),
        Mutant("the slope of c", "slope", (Edit(lstm_cell_backward, "    *_, dc_prev =",
            "    c = cache.f * cache.c_prev + cache.i * cache.g\n    cache = cache._replace(tanh_c=c)\n    *_, dc_prev ="),),
            ("gate", "term")),
        Mutant("the last h alone is told", "path",
               (Edit(lstm_backward, "    dh = dc = xp",
                     "    dout = dout * (np.arange(len(x)) == len(x) - 1)[:, None, None]\n    dh = dc = xp"),)),
        Mutant("o's slope forgotten, the states exchanged", "gate", (
            Edit(lstm_cell_backward, "    return dgates", "    do /= cache.o * (1 - cache.o)\n    return dgates"),
            Edit(lstm_backward, "db, dh, dc\n", "db, dc, dh\n"),
        ), ("order",)),
    ),
    "A3": (
        Mutant("one maximum for all", "shift", (body(softmax_forward, """
e = np.exp(scores - np.max(scores))
alpha = e / e.sum(axis=1, keepdims=True)
return alpha, SoftmaxCache(alpha)
"""),), ("follows",)),
        Mutant("over the captions", "axis", (
            body(softmax_forward, "alpha = softmax(scores.T).T\nreturn alpha, SoftmaxCache(alpha)"),
            body(softmax_backward, "return softmax_gradient(dalpha.T, cache.alpha.T).T"),
        ), ("forward", "follows")),
        Mutant("dv with the slope", "slope", (Edit(additive_scores_backward, "    return dkeys,",
            "    tanh = np.tanh(cache.keys + cache.query[:, None])\n"
            "    dv = np.einsum('nl,nla->a', dscores, 1 - tanh**2)\n    return dkeys,"),)),
        Mutant("the context is a mean", "size",
               (Edit(context_forward, "return _weighted_sum(alpha, annotations)",
                     "return _weighted_sum(alpha, annotations) / alpha.shape[1]"),), ("forward",)),
        Mutant("the sigmoid of beta", "slope", (Edit(gate_backward, "    dh = dpre @ W.T\n",
            "    s = 1 / (1 + np.exp(-beta))\n    dpre = dpre / (beta * (1 - beta)) * s * (1 - s)\n    dh = dpre @ W.T\n"),
            )),
        Mutant("b in the keys and in the query", "term", (Edit(look_forward, "W_s, 0 * b)", "W_s, b)"),),
               ("forward", "follows", "factor")),
        Mutant("each weight squared first", "square", (Edit(doubly_stochastic_forward,
            "    squares = xp_of(excess).dot(excess.ravel(), excess.ravel())",
            "    squares = (mask[:, :, None] * (alphas - 1) ** 2).sum()"),), ("forward", "follows", "step")),
    ),
    "A4": (
        Mutant("the 1 not weighted", "target", (body(cross_entropy_backward, """
p, targets, weights, _ = cache
d = p * weights[:, None]
d[np.arange(len(d)), targets] -= 1
return d * dloss
"""),)),
        Mutant("a line copied", "path", (body(initial_state_backward, """
dh, dc = dout
ph, pc, m, W = dh * (1 - cache.h**2), dc * (1 - cache.c**2), cache.affine_h.x, cache.affine_h.W
dm = (ph @ W.T + pc @ W.T) / cache.L
return np.stack([dm] * cache.L, axis=1), m.T @ ph, ph.sum(0), m.T @ pc, pc.sum(0)
"""),)),
        Mutant("the word is said from the old h", "step", (
            Edit(word_forward, "    (h, c), cell = ", "    old = h\n    (h, c), cell = "),
            Edit(word_forward, "deep_output_forward(Ey, h,", "deep_output_forward(Ey, old,"),
        ), ("forward", "follows")),
        Mutant("1 / N twice", "batch",
               (Edit(captioner_backward, "cross_entropy_backward(dloss, ", "cross_entropy_backward(dloss / len(start.h), "),
                ), ("size",)),
        Mutant("nothing from the step after", "state",
               (Edit(captioner_backward, "dseen, dh, dc, more =", "dseen, _, _, more ="),), ("zero",)),
        Mutant("the first c is told nothing", "state",
               (Edit(captioner_backward, "initial_state_backward((dh, dc),",
                     "initial_state_backward((dh, np.zeros_like(dc)),"),), ("zero",)),
    ),
    "A5": (
        Mutant("noise on alpha", "draw", (body(draw, """
e = np.exp(scores - scores.max(axis=-1, keepdims=True))
best = (e / e.sum(axis=-1, keepdims=True) + gumbel).argmax(axis=-1)
return np.eye(scores.shape[-1], dtype=gumbel.dtype)[best]
"""),)),
        Mutant("rolled round", "step", (body(after, "return np.roll(to_go(log_p, mask), -1, axis=0)"),)),
        Mutant("the neighbour", "sample", (body(leave_one_out, "return np.concatenate([rewards[1:], rewards[:1]])"),)),
        Mutant("the plain mean of l", "mean", (body(local_expectation, """
return -(alpha * (ahead - ahead.mean(axis=-1)[..., None]) + advantage[..., None] * (sample - alpha))
"""),)),
        Mutant("log alpha + 1", "diagonal",
               (body(entropy_gradient, "return weight[..., None] * alpha * (log_softmax(scores) + 1)"),),
               ("non-finite", "log")),
        Mutant("the entropy of padded steps", "mask", (body(choices_backward, """
(S, T, N, L), (alpha, _) = scores.shape, softmax_forward(scores)
rewards = np.stack([total(x, mask) for x in log_p])
share = np.broadcast_to(mask / (S * N), (S, T, N))
more = entropy_gradient(scores, alpha, np.full((S, T, N), entropy_weight / (S * N)))
return reinforce(sample, alpha, share * (rewards - leave_one_out(rewards))) + more
"""),)),
        Mutant("in bits", "factor", (Edit(entropy, "return -", "return -1 / np.log(2) * "),)),
    ),
    "A6": (
        Mutant("steps and captions mixed", "order",
               (Edit(all_scores_forward, "query.reshape(T, N, A)", "query.reshape(N, T, A).swapaxes(0, 1)"),),
               ("forward", "wrong", "follows")),
        Mutant("ids sorted, rows not", "row", (Edit(embedding_backward, "dout[order]", "dout"),), ("wrong",)),
        Mutant("two sums multiplied", "sum",
               (Edit(all_scores_backward, "    return drows",
                     "    dW_s = cache.query.x.reshape(T, N, -1).sum(0).T @ dquery.sum(0)\n    return drows"),), ("wrong",)),
    ),
}  # fmt: skip

VARIANTS = {
    "A1": (
        (
            body(max_pool_backward, """
x, out, K, stride, _ = cache
P, Q = out.shape[1:3]
padded = _pad_far(x, K, stride, P, Q, -np.inf)
dx = np.zeros(padded.shape, dtype=dout.dtype)
for n, p, q, c in np.ndindex(out.shape):
    cells = padded[n, p * stride : p * stride + K, q * stride : q * stride + K, c]
    i, j = np.unravel_index(cells.argmax(), cells.shape)
    dx[n, p * stride + i, q * stride + j, c] += dout[n, p, q, c]
return dx[:, : x.shape[1], : x.shape[2]]
"""),
        ),
        (
            body(conv2d_backward_weights, """
x, W, stride, padding = cache
x, (N, P, Q, F), dW = pad(x, padding, padding), dout.shape, np.zeros(W.shape, dout.dtype)
for i, j in np.ndindex(W.shape[:2]):
    dW[i, j] = np.einsum("npqc,npqf->cf", x[:, window(i, stride, P), window(j, stride, Q)], dout)
return dW, dout.sum(axis=(0, 1, 2))
"""),
        ),
    ),
    "A2": (
        (
            body(lstm_cell_backward, """
dh, dc = dout
c_prev, i, f, o, g, tanh_c = cache
dc = dc + dh * o * (1 - tanh_c**2)
parts = dc * g * i * (1 - i), dc * c_prev * f * (1 - f), dh * tanh_c * o * (1 - o), dc * i * (1 - g**2)
return np.concatenate(parts, axis=1), dc * f
"""),
        ),
        (
            Edit(lstm_backward, "        dW_h += before[t].T @ dgates\n",
                 "        dW_h += np.einsum('nh,ng->hg', before[t], dgates)\n"),
            Edit(lstm_backward, "db += dgates.sum(axis=0)", "db = db + np.ones(len(dgates), dgates.dtype) @ dgates"),
        ),
    ),
    "A3": (
        (
            body(softmax_backward, """
(alpha,) = cache
return np.stack([(np.diag(a) - np.outer(a, a)) @ d for a, d in zip(alpha, dalpha)])
"""),
        ),
        (
            body(additive_scores_backward, """
keys, query, v, F = cache
tanh = np.tanh(keys + query[:, None])
dpre = dscores[:, :, None] * v * (1 - tanh * tanh)
return dpre, dpre.sum(axis=1), np.einsum("nl,nla->a", dscores, tanh), dscores.sum().reshape(1)
"""),
            body(context_backward, """
alpha, annotations = cache
return np.einsum("nd,nld->nl", dcontext, annotations), np.einsum("nl,nd->nld", alpha, dcontext)
"""),
        ),
    ),
    "A4": (
        (
            body(embedding_backward, """
ids, shape = cache
dE = np.zeros(shape, dtype=dout.dtype)
np.add.at(dE, ids, dout)
return dE
"""),
            body(cross_entropy_backward, """
p, targets, weights, _ = cache
onehot = (np.arange(p.shape[1]) == targets[:, None]).astype(p.dtype)
return (dloss * weights)[:, None] * (p - onehot)
"""),
        ),
        (
            body(initial_state_backward, """
dpre_h, dpre_c = dout[0] * (1 - cache.h**2), dout[1] * (1 - cache.c**2)
mean, L = cache.affine_h.x, cache.L
dmean = dpre_h @ cache.affine_h.W.T + dpre_c @ cache.affine_c.W.T
return np.stack([dmean / L] * L, axis=1), mean.T @ dpre_h, dpre_h.sum(0), mean.T @ dpre_c, dpre_c.sum(0)
"""),
        ),
    ),
    "A5": (
        (
            body(to_go, "return np.array([(mask * log_p)[t:].sum(axis=0) for t in range(len(log_p))])"),
            body(after, "return np.array([(mask * log_p)[t + 1 :].sum(axis=0) for t in range(len(log_p))])"),
            body(leave_one_out,
                 "\nreturn np.stack([np.delete(rewards, k, axis=0).mean(axis=0) for k in range(len(rewards))])\n"),
            body(draw, """
sample = np.zeros(scores.shape, gumbel.dtype)
np.put_along_axis(sample, (scores + gumbel).argmax(axis=-1)[..., None], 1, axis=-1)
return sample
"""),
        ),
        (
            body(entropy, """
alpha = np.exp(scores - scores.max(axis=-1, keepdims=True))
alpha /= alpha.sum(axis=-1, keepdims=True)
return -(alpha * np.log(np.where(alpha > 0, alpha, 1))).sum(axis=-1)
"""),
            body(bound_backward, """
sample, alpha, rewards, p = cache
value = (p * rewards)[:, None, None]
return dbound * (value * (sample - alpha)).sum(axis=0), dbound * p
"""),
        ),
    ),
    "A6": (
        (
            body(embedding_backward, """
ids, shape = cache
return np.stack([np.bincount(ids, weights, shape[0]) for weights in dout.T.astype(float)], axis=1).astype(dout.dtype)
"""),
        ),
        (
            body(conv2d_backward_weights, """
x, W, stride, padding = cache
x, (N, P, Q, F), dW = pad(x, padding, padding), dout.shape, np.zeros(W.shape, dout.dtype)
for i, j in np.ndindex(W.shape[:2]):
    seen = x[:, window(i, stride, P), window(j, stride, Q)].reshape(N * P * Q, -1)
    dW[i, j] = seen.T @ dout.reshape(N * P * Q, F)
return dW, dout.sum(axis=(0, 1, 2))
"""),
        ),
    ),
}  # fmt: skip
