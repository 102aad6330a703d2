"""The bug zoo: mistakes that people make in backward passes, each planted in the real source and each to be caught.

A gradient check is only worth what it catches. `check(bug)` runs the check with the mistake in place; the kinds that it
must report stand in the table.
"""

import inspect
import linecache
import sys
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from satnp import estimators, layers
from satnp.arrays import kernels
from satnp.captioners import show_attend_tell
from satnp.encoders import small
from satnp.estimators import score_function
from satnp.layers import activations, conv, initial_state, lstm, penalty
from satnp.proof import checks
from satnp.proof.gradcheck import Draws, check_draws, check_gradients


class Bug(NamedTuple):
    """In `function`, `old` (which occurs once) becomes `new`; the check called `case` must report exactly `kinds`."""

    name: str
    function: Any
    old: str
    new: str
    case: str
    kinds: set


def planted(bug):
    """The function with the mistake in it, made from the real source."""
    source = inspect.getsource(bug.function)
    if source.count(bug.old) != 1:
        raise ValueError(f"{bug.old!r} occurs {source.count(bug.old)} times in {bug.function.__name__}, not once")
    namespace = dict(inspect.unwrap(bug.function).__globals__)
    file, broken = f"<bug: {bug.name}>", source.replace(bug.old, bug.new)
    linecache.cache[file] = len(broken), None, broken.splitlines(keepends=True), file  # kernels are made from sources
    exec(compile(broken, file, "exec"), namespace)
    return namespace[bug.function.__name__]


@contextmanager
def in_place(bug):
    """Within the block satnp uses the function with the mistake in it, which is yielded."""
    broken, name = planted(bug), bug.function.__name__
    ours = [module for path, module in sys.modules.items() if path.partition(".")[0] == "satnp"]
    places = [module for module in ours if getattr(module, name, None) is bug.function]
    for module in places:
        setattr(module, name, broken)
    try:
        yield broken
    finally:
        for module in places:
            setattr(module, name, bug.function)


def check(bug):
    """Run the case of `bug` with the mistake in place -> gradcheck.Result"""
    case = checks.find(bug.case)
    with in_place(bug) as broken, np.errstate(invalid="ignore", divide="ignore"):
        if isinstance(case, Draws):
            return check_draws(case)
        return check_gradients(replace(case, backward=broken) if case.backward is bug.function else case)


CAPTIONER = "captioners/show_attend_tell additive scalar"
HARD = "captioners/show_attend_tell hard additive scalar reinforce moving_average"
REINFORCE = "captioners/show_attend_tell hard additive scalar reinforce none none"  # alone on its way into f_att
sat = show_attend_tell

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
        "dout * (out > 0)", "dout", "layers/relu", {"mask"}),
    Bug("tanh derivative forgotten", activations.tanh_gradient,
        "dout * (1 - out * out)", "dout", "layers/tanh", {"term"}),
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
    Bug("max-pool gradient to every cell", layers.max_pool_backward,
        "taken *= left", "taken = dout[photos] / K**2",
        "layers/max_pool K=2 stride=2 floor", {"mask"}),
    Bug("average-pool gradient not divided", layers.average_pool_backward,
        "dout / K**2", "dout", "layers/average_pool K=2 stride=2", {"factor"}),
    Bug("i and g swapped", layers.lstm_cell_backward,
        "(di, df, do, dg, None)", "(dg, df, do, di, None)", "layers/lstm_cell", {"block"}),
    Bug("cell's own gradient lost", lstm._cell_gradient,
        "dc = dc + dh * o", "dc = dh * o", "layers/lstm_cell", {"block", "term"}),
    Bug("tanh' taken at tanh(c) once more", lstm._cell_gradient,
        "1 - tanh_c * tanh_c", "1 - xp_of(dc).tanh(tanh_c) * xp_of(dc).tanh(tanh_c)", "layers/lstm_cell", {"block", "term"}),
    Bug("beta forgotten", layers.gate_backward,
        "dz * beta", "dz", "layers/gate scalar", {"term"}),
    Bug("scores' query of the last location only", layers.additive_query_backward,
        "np.dot(dscores[n], of_photo, out=dquery[n])", "dquery[n] = dscores[n, -1] * of_photo[-1]",
        "layers/additive_scores", {"term"}),
    Bug("sign of the tanh derivative", layers.additive_keys_backward,
        "R -= R * R", "R[...] = R * R - R", "layers/additive_scores", {"sign"}),
    Bug("mean annotation not divided by L", initial_state._of_each_location,
        "(dmean_h + dmean_c) / L", "dmean_h + dmean_c", "layers/initial_state", {"factor"}),
    Bug("c_0 forgotten", layers.initial_state_backward,
        "tanh_gradient(dc, cache.c)", "0 * dc", "layers/initial_state", {"zero", "term"}),
    Bug("context of the output layer forgotten", layers.deep_output_backward,
        "dz = dpre @ L_z.T", "dz = 0 * z", "layers/deep_output", {"zero"}),
    Bug("sign of the penalty", penalty._spread,
        "mask * (", "-mask * (", "layers/doubly_stochastic", {"sign"}),
    Bug("penalty of padded steps", layers.doubly_stochastic_backward,
        "mask[:, :, None]", "(0 * mask[:, :, None] + 1)", "layers/doubly_stochastic", {"mask"}),
    Bug("doubly stochastic term lost", sat.backward,
        "(config.penalty, cache.doubly)", "(0, cache.doubly)", CAPTIONER, {"term", "block"}),
    Bug("c not carried to the step before", sat.backward,
        "(dh, dc), step.cell", "(dh, 0 * dc), step.cell", CAPTIONER, {"term", "block"}),
    Bug("h not carried to the step before", sat._to_state,
        " + dh_next + dh_att + dgate * weight", " + 0 * (dh_next + dh_att + dgate * weight)",
        CAPTIONER, {"term", "block", "zero"}),
    Bug("h's gradient from the attention lost", sat._to_state,
        " + dh_att", "", CAPTIONER, {"term", "block"}),
    Bug("h's gradient from beta lost", sat._to_state,
        " + dgate * weight", "", CAPTIONER, {"term", "block"}),
    Bug("context's gradient from the output layer lost", sat._through_gate,
        "dz = dz_out + ", "dz = ", CAPTIONER, {"term", "block"}),
    Bug("beta missing in the context's gradient", sat._through_gate,
        "dz * beta", "dz", CAPTIONER, {"term", "block"}),
    Bug("annotations' gradient from the context lost", sat._sum,
        "a + b + c", "a + c", CAPTIONER, {"term"}),
    Bug("annotations' gradient from the keys lost", sat._sum,
        "a + b + c", "a + b", CAPTIONER, {"term"}),
    Bug("embedding's gradient from the output layer lost", sat.backward,
        "dwords += dgates", "dwords = dgates", CAPTIONER, {"block"}),
    Bug("embedding's dropout forgotten on the way back", sat.backward,
        "dropout_backward(dwords, words_dropout)", "dwords", CAPTIONER, {"mask"}),
    Bug("W_h's gradient of the last step only", sat.backward,
        "hz.T @ dgates", "hz[-N:].T @ dgates[-N:]", CAPTIONER, {"term"}),
    Bug("keys of the last step only", sat.attention_keys_backward,
        "(dscores, cache.queries, ", "(dscores[-1:], cache.queries[-1:], ",
        CAPTIONER, {"term"}),
    Bug("sign of REINFORCE", estimators.reinforce,
        "return -advantage", "return advantage", "estimators/reinforce", {"sign"}),
    Bug("sign of the entropy term", estimators.entropy_gradient,
        "return weight", "return -weight", "estimators/entropy", {"sign"}),
    Bug("log(alpha) where alpha is 0", score_function._alpha_log_alpha,
        "alpha * xp.where(alpha == 0, 0, log_alpha)", "alpha * xp.log(alpha)",
        "estimators/entropy with weights of 0", {"non-finite"}),
    Bug("Gumbel-softmax not divided by its temperature", estimators.straight_through,
        "keepdims=True)) / temperature", "keepdims=True))", "estimators/straight_through", {"factor"}),
    Bug("this word counted twice", sat.advantage,
        "REWARDS[config.estimator]", "REWARDS['reward_to_go']",
        "expectations/local_expectation none", {"term", "block"}),
    Bug("the words after this one forgotten", sat.advantage,
        "return reward\n", "return reward * 0\n", "expectations/local_expectation none", {"term", "block"}),
    Bug("baseline updated before use", sat.forward,
        "hard = Hard(all_scores,", "baseline = moving_average(baseline, (mask * log_p).sum(axis=0), 1 - noise.expected)\n"
        "        hard = Hard(all_scores,", "expectations/reinforce moving_average", {"factor", "term", "block"}),
    Bug("own sample in the mean", estimators.leave_one_out,
        "(rewards.sum(axis=0) - rewards) / (len(rewards) - 1)", "rewards.mean(axis=0) + 0 * rewards",
        "expectations/reinforce leave_one_out", {"factor", "term", "block"}),
    Bug("likelihood leaks through the sample", sat.backward,
        "expected * dlook", "dlook", HARD, {"term", "block"}),
    Bug("score gradient not sent on into h_{t-1}", sat.backward,
        "step.scores, out=dquery)", "step.scores, out=dquery)\n"
        "            dh_att = attention_query_backward(p, config, dscores[t] - dscores_hard[t], step.scores)",
        HARD, {"term", "block"}),
    Bug("sum over the batch for the mean", sat.score_gradients,
        "share = hard.mask / hard.mask.shape[1]", "share = hard.mask", REINFORCE, {"factor", "term", "block"}),
    Bug("padded steps rewarded", sat.score_gradients,
        "hard.mask / hard.mask.shape[1]", "(0 * hard.mask + 1) / hard.mask.shape[1]", HARD, {"term", "block"}),
    Bug("one coin for the batch", sat.draw_noise,
        '"image": N', '"image": 1', "draws/coins of two images", {"distribution"}),
    Bug("one draw for all samples", sat.draw_noise,
        "rng.gumbel(size=(S * N, L))", "np.tile(rng.gumbel(size=(N, L)), (S, 1))",
        "draws/two samples of an image", {"distribution"}),
    Bug("locations drawn without Gumbel's second logarithm", estimators.draw,
        "scores + gumbel", "scores + xp.exp(-gumbel)", "draws/locations", {"distribution"}),
    Bug("encoder's coordinate planes not cut off", small.backward,
        "dx[..., :-2]", "dx[..., 2:]", "encoders/small", {"term"}),
]  # fmt: skip
