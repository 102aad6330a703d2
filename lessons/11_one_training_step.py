# %% [markdown]
# # 11 One training step: everything together
#
# - time: 75 minutes
# - cpu: 40 seconds
# - before: 00, 02, 04, 06, 07, 09, 10
# - equations: Xu et al. 2015, eqs. 1-7, 13 and 14
# - about: satnp.reference.show_attend_tell.backward
#
# You know all the parts: embedding, LSTM, scores, softmax, context, gate, output layer, penalty. This lesson joins them into
# one forward and one backward pass. Its one idea: the gradient of an array that is used in $k$ places is a sum of $k$ parts,
# and the typical bug of a captioner is a part that was forgotten. Then a captioner memorises twenty captions, and we try
# five checks on eight planted bugs.
#
# As in the lessons before, $dx$ is the gradient of the loss with respect to $x$.

# %% [markdown]
# ## Predict
#
# 1. A captioner with a vocabulary of $V$ words has random weights. A caption has $T$ words to predict. About how large is
#    its loss?
# 2. $h_t$ is the hidden state of the LSTM at step $t$. In which places of the model is it used?
# 3. Suppose the backward pass leaves out one of these places. Does the loss still fall? Does it still come close to zero on
#    twenty captions?

# %%
import numpy as np
from kit import graph, near, save, show
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

from satnp.arrays import optim
from satnp.arrays.parameters import Parameters
from satnp.captioners import show_attend_tell as sat
from satnp.captioners.contract import Batch
from satnp.data.captions import END, START, Vocabulary, pad
from satnp.data.scenes import make_scenes
from satnp.encoders import small
from satnp.layers import (
    context_backward,
    cross_entropy_backward,
    cross_entropy_forward,
    gate_backward,
    gate_forward,
    lstm_cell_backward,
    lstm_cell_forward,
    softmax,
    softmax_backward,
)
from satnp.proof import bugs
from satnp.proof.gradcheck import numeric_gradient
from satnp.reference import show_attend_tell as plain

np.set_printoptions(precision=4, suppress=True, linewidth=78)
scenes = make_scenes(20, "train", seed=0)
sentences = [scene.captions[0].split() for scene in scenes]
vocabulary = Vocabulary.build(sentences, min_count=1)
captions, mask = pad([vocabulary.encode(words) for words in sentences])
print(scenes[0].captions[0], "->", captions[0])
print("captions", captions.shape, " mask", mask.shape)
print("words to predict", mask.sum(axis=1).astype(int))

# %% [markdown]
# ## Run
#
# ### The data
#
# The data are twenty rendered scenes with one true caption each. A caption is a row of ids: `<start>` (1), the words,
# `<end>` (2), and then `<pad>` (0). The decoder reads word $t-1$ and must predict word $t$. So one array is used twice:
# `captions[:, :-1]` are the inputs, `captions[:, 1:]` are the targets, and `mask` is 1 where a target counts (lesson 07).
#
# The encoder is a small CNN with random weights, which are not trained. As we shall see, its features are enough to
# distinguish twenty photos. The annotations are therefore computed only once.

# %%
encoder = small.Config(channels=(8, 16, 24, 32, 48))
encoder_params = small.init(encoder, np.random.default_rng(1))
images = np.stack([scene.image for scene in scenes])
annotations, _ = small.forward(encoder_params, encoder, images)
config = sat.Config(V=len(vocabulary), D=encoder.D, M=32, H=64, A=32, penalty=0.1, dropout=0.0)
batch = Batch(annotations, captions, mask)
params = sat.init(config, np.random.default_rng(2))
print("photos", images.shape, "-> annotations", annotations.shape, f"({encoder.grid[0]} x {encoder.grid[1]} cells)")
print(f"decoder: {len(params.flat):,} parameters in {len(params)} arrays, V = {config.V}")

# %% [markdown]
# ### Forward
#
# Read the listings with the equations at hand: `turn` in lesson 00 has them all, with the same names. The listings are the
# plain form of the captioner, in `satnp/reference`: each step computes every equation. A step has two halves.
# `f_att_forward` and softmax make the weights (eqs. 4-5); `word_forward` makes the context, the gate, the next state and the
# logits of the word (eqs. 1-3, 6 and 7). One layer has no lesson of its own, the output layer (`deep_output_forward`):
#
# $$
# \begin{aligned}
# \text{hidden}_t &= \tanh(E[y_{t-1}] + h_t L_h + z_t L_z + b_m) \\
# \text{logits}_t &= \text{hidden}_t \, L_o + b_o
# \end{aligned}
# $$
#
# You may skip what belongs to hard attention (lesson 12): all lines with `hard`, `sampled`, `noise`, `ahead` or `choices`,
# and the S copies of the batch. Without it `look` is `alpha`. The masks of dropout are None here: `sat.Noise()` means that
# nothing is random. The index `t` of the code starts at 0, so its pass with `t = 0` computes step 1.

# %%
show(plain.forward)
show(plain.f_att_forward)
show(plain.word_forward)

# %% [markdown]
# Training uses another form of the same model, `satnp/captioners/show_attend_tell.py`. It takes out of the loop over time
# whatever does not depend on $h_{t-1}$: the keys $a_i W_a$ and the products of the words come before the loop, the output
# layer comes after it, for all steps in one product. The numbers are the same up to rounding (the weights here are float32).

# %%
loss, cache = sat.forward(params, config, batch, sat.Noise())
plain_loss, plain_cache = plain.forward(params, config, batch, sat.Noise())
near("loss, plain form against the form that trains", plain_loss, loss, 1e-5)
expected = float(mask.sum(axis=1).mean()) * np.log(config.V)
print(f"loss without the penalty {cache.nll:.2f} nats per caption; T log V = {expected:.2f}")
for name in ("alphas", "h_prev", "z"):
    print(name, getattr(cache, name).shape, "(T, N, ...)")

# %% [markdown]
# This answers the first question. If all $V$ words are equally likely, a word costs $\log V$ nats and a caption $T \log V$.
# Look at this number first in any new training. Here the loss is a little larger, because the random weights already prefer
# some words to others.
#
# ### Backward: count the uses
#
# By the chain rule (lesson 01), the gradient of an array is the sum of one part for each place where the array is used. So
# list the places. (`f_att` is the paper's name for the function that computes the scores, lesson 08.)
#
# | array | where it is used | parts |
# |---|---|---|
# | $h_t$ | output layer of word $t$ ($L_h$); LSTM ($W_h$), `f_att` ($W_s$) and gate of step $t+1$ | 4 |
# | $c_t$ | $h_t = o_t \odot \tanh(c_t)$; $c_{t+1} = f_{t+1} \odot c_t + i_{t+1} \odot g_{t+1}$ | 2 |
# | $z_t$ | LSTM of step $t$ ($W_z$); output layer of word $t$ ($L_z$) | 2 |
# | $E[y_{t-1}]$ | LSTM of step $t$ ($W_x$); output layer of word $t$ | 2 |
# | $\alpha_t$ | context of step $t$; penalty | 2 |
# | $a_i$ | context of every step; keys $a_i W_a$ of every step; the mean that makes $h_0$ and $c_0$ | 3 kinds |
#
# The backward pass goes through the steps in reverse. At the top of its loop `dh` holds what step $t+1$ has sent to $h_t$:
# the parts of LSTM, `f_att` and gate. Put the listings beside the forward ones. They follow the forward lines from the
# bottom to the top, and each line that adds (`dh + ...`, `dEy + dEy_out`, `dz + dz_out`) belongs to a row of the table.
# (`drawn` is 0, and a backward of dropout without a mask returns what it receives.)

# %%
show(plain.backward)
show(plain.word_backward)
show(plain.f_att_backward)
gradients = {form: params.zeros_like() for form in (plain, sat)}
plain.backward(plain_cache, gradients[plain])
sat.backward(cache, gradients[sat])
near("gradient, plain form against the form that trains", gradients[plain].flat, gradients[sat].flat, 1e-4)

# %% [markdown]
# ### Memorising twenty captions
#
# A training step sets the gradients to zero, runs the forward and the backward pass, clips the gradient (one with a norm
# above 1 is divided by its norm), and updates the parameters by Adam (lesson 04). `frozen` means that the encoder needs no
# gradient. (`threadpool_limits` keeps the matrix products, which are small here, on one thread.)


# %%
def train(batch, steps=120, params=None, keep_zero=()):
    """-> params, and nats per word at each step; `keep_zero` names parameters that stay 0."""
    params = sat.init(config, np.random.default_rng(2)) if params is None else params
    state, grads, curve = optim.new_state("adam", params.flat), params.zeros_like(), []
    for name in keep_zero:
        params[name][...] = 0
    with threadpool_limits(1, user_api="blas"):
        for _ in range(steps):
            grads.flat[:] = 0
            _, cache = sat.forward(params, config, batch, sat.Noise())
            sat.backward(cache, grads, frozen=True)
            for name in keep_zero:
                grads[name][...] = 0
            _, factor = optim.clip_factor(grads.flat, 1.0)
            optim.adam(params.flat, grads.flat, state, 5e-3, factor)
            curve.append(float(cache.nll) / float(mask.sum(axis=1).mean()))
    return params, np.array(curve)


params, curve = train(batch)
print("nats per word at steps 0, 20, 50, 119:", curve[[0, 20, 50, 119]])


# %%
def describe(params, annotations):
    """The most likely word at each step, until <end> (lesson 14)."""
    state, words = sat.start(params, config, annotations), np.full(len(annotations), START)
    said = []
    for _ in range(captions.shape[1] - 1):
        log_p, state, _ = sat.step(params, config, state, words, np.arange(len(words)))
        words = log_p.argmax(axis=1)
        said.append(words)
    return [vocabulary.decode([*ids, END]) for ids in np.array(said).T.tolist()]


said = describe(params, annotations)
print("captions reproduced word by word:", sum(a == b for a, b in zip(said, sentences, strict=True)), "of", len(sentences))
for words in said[:3]:
    print("  ", " ".join(words))

# %% [markdown]
# ### The encoder learns too
#
# Without `frozen`, `backward` returns `dannotations`, the sum of the three kinds of parts. It is the upstream gradient of
# the encoder's own backward pass (lesson 04); then Adam updates both. We run 21 steps:

# %%
joint = {"encoder": encoder_params.on(encoder_params.flat.copy()), "decoder": sat.init(config, np.random.default_rng(2))}
states, size = {name: optim.new_state("adam", p.flat) for name, p in joint.items()}, np.linalg.norm
for _ in range(21):
    seen, encoder_cache = small.forward(joint["encoder"], encoder, images)
    _, cache = sat.forward(joint["decoder"], config, Batch(seen, captions, mask), sat.Noise())
    gradients = {name: p.zeros_like() for name, p in joint.items()}
    small.backward(sat.backward(cache, gradients["decoder"]), encoder_cache, gradients["encoder"])
    for name, p in joint.items():
        _, factor = optim.clip_factor(gradients[name].flat, 1.0)
        optim.adam(p.flat, gradients[name].flat, states[name], 5e-3 if name == "decoder" else 1e-3, factor)
print(f"nats per word at step 20: {float(cache.nll) / mask.sum(axis=1).mean():.3f}, with the encoder frozen {curve[20]:.3f}")
print(f"|dW0| of the first filters {size(gradients['encoder'].W0):.4f}")

# %% [markdown]
# ## Look
#
# How large are the parts? The form that trains adds them in three small functions: `_to_state` adds those of $dh$,
# `_through_gate` those of $dz$, `_sum` those of the annotations. For one pass we replace these functions, and two others, by
# versions that also record their inputs and results. (The gate's part of $dh$ arrives as two factors, `gate` and `weight`.)
# The model is tiny and in float64, as in every gradient check.

# %%
rng = np.random.default_rng(0)
tiny = sat.Config(V=11, D=5, M=3, H=4, A=6, penalty=0.7, dropout=0.0)
N, T, L = 2, 4, 7
tiny_params = Parameters(sat.shapes(tiny), flat=0.7 * rng.standard_normal(sat.init(tiny, rng).flat.size))
tiny_mask = np.array([[1.0, 1, 1, 1], [1, 1, 1, 0]])
tiny_batch = Batch(rng.standard_normal((N, L, tiny.D)), rng.integers(4, tiny.V, (N, T + 1)), tiny_mask)
names = "_to_state", "_through_gate", "_sum", "lstm_cell_backward", "loop_backward"
watched, noted = {name: getattr(sat, name) for name in names}, {name: [] for name in names}


def watch(name):
    def wrapped(*parts, **where):
        result = watched[name](*parts, **where)
        noted[name].append((parts, result))
        return result

    return wrapped


for name in watched:
    setattr(sat, name, watch(name))
_, tiny_cache = sat.forward(tiny_params, tiny, tiny_batch, sat.Noise())
grads = tiny_params.zeros_like()
dannotations = sat.backward(tiny_cache, grads)
for name, function in watched.items():
    setattr(sat, name, function)

print("|dh| by part    own word     LSTM  attention     gate")
for t, ((own, lstm, attention, gate, weight), _) in zip(range(T - 1, -1, -1), noted["_to_state"], strict=True):
    print(f"of h_{t}      {size(own):12.4f} {size(lstm):8.4f} {size(attention):10.4f} {size(gate * weight):8.4f}")
print("|dz| by part    output     LSTM")
for t, ((output, lstm, _), _) in zip(range(T, 0, -1), noted["_through_gate"], strict=True):
    print(f"of z_{t}      {size(output):10.4f} {size(lstm):8.4f}")
print("|da| by part: mean of h_0, c_0 {:.4f}, context {:.4f}, keys {:.4f}".format(*map(size, noted["_sum"][0][0])))

# %% [markdown]
# No output layer uses $h_0$, so its first part is 0. All other parts are there, and the largest one differs from step to
# step. ("Break it" shows that the model still learns when one of them is missing.)
#
# ### One step, drawn
#
# Here are the same parts as arrows, for step 1 of the tiny model: first attention and gate, then LSTM and output layer.
# Solid arrows are the forward pass. Each dashed arrow has its formula, or the backward function of the layer, which takes
# the upstream gradient; `[0]` is the first gradient that it returns. If several dashed arrows reach a box, their sum is
# its gradient. "From later" comes what step 1 alone does not give: the penalty's part of $d\alpha$, and the parts of the
# state that come from step 2. `state` is $h_1$ and $c_1$ side by side, and `pad` appends the zeros for $c_1$. `graph`
# evaluates each formula and compares: the forward arrays and the gradients must be those that the pass above has recorded.

# %%
p, (_, plain_cache) = tiny_params, plain.forward(tiny_params, tiny, tiny_batch, sat.Noise())
step, ignored = plain_cache.steps[0], tiny_params.zeros_like()  # a backward function adds dW to `ignored`
word, M, H, D = step.word, tiny.M, tiny.H, tiny.D
(_, _, _, dalphas, _), loop = noted["loop_backward"][0]
(_, dh_lstm, dh_att, dgate, weight), _ = noted["_to_state"][T - 1]  # the parts of dh_0
(_, *parts), _ = noted["_to_state"][T - 2]  # of dh_1; without its own word: what step 2 sends
later = np.hstack([parts[0] + parts[1] + parts[2] * parts[3], noted["lstm_cell_backward"][T - 2][1][1]])
dz = noted["_through_gate"][T - 1][1][0]
inputs = {"a": tiny_batch.annotations, "h_0": tiny_cache.h_prev[0], "z": tiny_cache.z[0]}
sizes = {"N": N, "L": L, "D": D, "M": M, "H": H, "V": tiny.V}

LOOK = [
    ("scores", "f_att(a, h_0)", {"a": "f_att_backward(dscores)[0]", "h_0": "f_att_backward(dscores)[1]"}),
    ("alpha", "softmax(scores)", {"scores": "softmax_backward(dalpha)"}),
    ("context", "einsum('nl,nld->nd', alpha, a)",
     {"alpha": "context_backward(dcontext)[0]", "a": "context_backward(dcontext)[1]"}),
    ("z", "gate(h_0, context)", {"h_0": "gate_backward(dz)[0]", "context": "gate_backward(dz)[1]"}),
]  # fmt: skip
graph("11_look", LOOK, inputs | {
    "alpha": tiny_cache.alphas[0], "dscores": loop.dscores[0], "dcontext": loop.dcontext[0], "dh_0": dh_att + dgate * weight,
    "f_att": lambda a, h: plain.f_att_forward(p, tiny, a, h)[0], "softmax": softmax, "einsum": np.einsum,
    "gate": lambda h, context: gate_forward(h, context, p.W_beta, p.b_beta)[0],
    "f_att_backward": lambda d: plain.f_att_backward(tiny, d, step.f_att, ignored),
    "softmax_backward": lambda d: softmax_backward(d, step.softmax),
    "context_backward": lambda d: context_backward(d, word.context),
    "gate_backward": lambda d: gate_backward(d, word.gate),
}, sizes, {"z": dz, "alpha": dalphas[0]}, "two dashed arrows reach a, two reach h_0: f_att's and the gate's")  # fmt: skip

# %%
WORD = [
    ("gates", "Ey@W_x + h_0@W_h + z@W_z + b", {"Ey": "dgates @ W_x.T", "h_0": "dgates @ W_h.T", "z": "dgates @ W_z.T"}),
    ("state", "hstack(lstm(gates, c_0))", {"gates": "lstm_backward(dstate)[0]", "c_0": "lstm_backward(dstate)[1]"}),
    ("pre", "Ey + state[:, :H]@L_h + z@L_z + b_m", {"Ey": "dpre", "state": "pad(dpre @ L_h.T)", "z": "dpre @ L_z.T"}),
    ("hidden", "tanh(pre)", {"pre": "dhidden * (1 - hidden**2)"}),
    ("logits", "hidden @ L_o + b_o", {"hidden": "dlogits @ L_o.T"}),
    ("nll", "cross_entropy(logits)", {"logits": "cross_entropy_backward(dnll)"}),
]  # fmt: skip
graph("11_word", WORD, inputs | {name: p[name] for name in p.shapes} | {
    "Ey": p.E[tiny_batch.captions[:, 0]], "c_0": word.cell.c_prev,
    "state": np.hstack([tiny_cache.h_prev[1], tiny_cache.steps[1].cell.c_prev]),
    "dz": dz, "dgates": loop.dgates[0], "dh_0": dh_lstm, "dc_0": loop.dstate[1],
    "H": H, "hstack": np.hstack, "tanh": np.tanh, "pad": lambda dh: np.hstack([dh, 0 * dh]),
    "lstm": lambda gates, c: lstm_cell_forward(gates, c)[0],
    "lstm_backward": lambda d: lstm_cell_backward(np.split(d, 2, axis=1), word.cell),
    "cross_entropy": lambda x: cross_entropy_forward(x, tiny_batch.captions[:, 1], tiny_mask[:, 0] / N)[0],
    "cross_entropy_backward": lambda d: cross_entropy_backward(d, step.cross_entropy),
}, sizes, {"nll": np.ones(()), "state": later}, "the third part of h_0; two arrows reach Ey, z and state")  # fmt: skip

# %% [markdown]
# ## Check by number
#
# Now the whole model: the gradient of each parameter array and of the annotations, against the complex step.

# %%
numbers = tiny_params.on(
    numeric_gradient(lambda flat: sat.forward(tiny_params.on(flat), tiny, tiny_batch, sat.Noise())[0], tiny_params.flat)
)
for name in ("E", "W_x", "W_h", "W_z", "W_a", "W_s", "v", "W_beta", "W_h0", "W_c0", "L_h", "L_z", "L_o"):
    near(f"d{name}", grads[name], numbers[name])
complex_params = tiny_params.on(tiny_params.flat.astype(complex))
da = numeric_gradient(
    lambda a: sat.forward(complex_params, tiny, tiny_batch._replace(annotations=a), sat.Noise())[0], tiny_batch.annotations
)
near("dannotations", dannotations, da)
print(f"dc_a {grads.c_a[0]:.0e}: the constant outside the tanh (lesson 08)")

# %% [markdown]
# That takes a forward pass for each parameter. For a large model choose one random direction $r$ in the space of all
# parameters. One complex step gives the derivative along $r$; compare it with the sum of gradient times $r$.


# %%
def gradient_error():
    """The error of the tiny model's whole gradient along a random direction."""
    direction = np.random.default_rng(5).standard_normal(tiny_params.flat.size)
    _, cache = sat.forward(tiny_params, tiny, tiny_batch, sat.Noise())
    grads = tiny_params.zeros_like()
    sat.backward(cache, grads, frozen=True)
    stepped = tiny_params.on(tiny_params.flat + 1e-30j * direction)
    number = sat.forward(stepped, tiny, tiny_batch, sat.Noise())[0].imag / 1e-30
    return abs(grads.flat @ direction - number) / abs(number)


print(f"along one direction: off by {gradient_error():.1e}")
assert gradient_error() < 1e-10

# %% [markdown]
# ## Break it
#
# A captioner with a bug may still learn. Here are five checks that take seconds each:
#
# | check | what it measures | wanted |
# |---|---|---|
# | start | loss before training, divided by $T \log V$ | within 10 % of 1 |
# | overfit | nats per word after 120 steps on twenty captions | below 0.1 |
# | photos | how much the nats per word rise if each caption gets the photo of another | above 0.5 |
# | moves | the share of $\alpha$ that moves to other locations from one word to the next | above 0.02 |
# | gradient | error of the gradient along one random direction | below 1e-10 |
#
# First, the model without a bug.


# %%
def nats(params, batch):
    _, cache = sat.forward(params, config, batch, sat.Noise())
    return float(cache.nll) / float(mask.sum(axis=1).mean()), cache


def checks(params, curve, batch):
    own, cache = nats(params, batch)
    other, _ = nats(params, batch._replace(annotations=np.roll(batch.annotations, 1, axis=0)))
    moves = 0.5 * np.abs(np.diff(cache.alphas, axis=0)).sum(axis=2)[mask.T[1:] > 0].mean()
    found = {"start": curve[0] / np.log(config.V), "overfit": own, "photos": other - own, "moves": moves}
    return found | {"gradient": gradient_error()}


PASSES = {
    "start": lambda x: 0.9 < x < 1.1, "overfit": lambda x: x < 0.1, "photos": lambda x: x > 0.5,
    "moves": lambda x: x > 0.02, "gradient": lambda x: x < 1e-10,
}  # fmt: skip
table = {"right": checks(params, curve, batch)}
curves = {"right": curve}
print(", ".join(f"{name} {x:.2g}" for name, x in table["right"].items()))
assert all(PASSES[name](x) for name, x in table["right"].items())

# %% [markdown]
# Now eight bugs. For each, predict which check fails.
#
# - *weights 10 times*: the initial weights are 10 times too large
# - *target given*: the input of step $t$ is word $t$, which is the target, in place of word $t-1$
# - *padding counted*: the loss ignores the mask
# - *photo lost*: every caption gets the mean of all photos
# - *state cancels*: the scores do not depend on $h$ (lesson 08); here $W_s$ is kept at 0
# - *wrong photos*: from the beginning, each caption has the photo of another
# - *attention's dh lost* and *c not carried*: two forgotten parts of the backward pass, from the list of bugs in
#   `satnp.proof.bugs`

# %%
zoo = {bug.name: bug for bug in bugs.BUGS}
# a Bug: its name, the function, a piece of its source, and what the piece becomes; the rest is not needed here
given = bugs.Bug("target given", sat.forward, "y_prev = batch.captions[:, :-1]", "y_prev = batch.captions[:, 1:]", "", set())
counted = bugs.Bug("padding counted", sat.forward, "weights = mask.ravel()", "weights = (0 * mask.ravel() + 1)", "", set())
large = sat.init(config, np.random.default_rng(2))
large.flat *= 10
mean_photo = batch._replace(annotations=np.repeat(annotations.mean(axis=0, keepdims=True), len(scenes), axis=0))
out_of_step = batch._replace(annotations=np.roll(annotations, 1, axis=0))
PLANTED = {
    "weights 10 times": (None, {"batch": batch, "params": large}),
    "target given": (given, {"batch": batch}),
    "padding counted": (counted, {"batch": batch}),
    "photo lost": (None, {"batch": mean_photo}),
    "state cancels": (None, {"batch": batch, "keep_zero": ("W_s",)}),
    "wrong photos": (None, {"batch": out_of_step}),
    "attention's dh lost": (zoo["h's gradient from the attention lost"], {"batch": batch}),
    "c not carried": (zoo["c not carried to the step before"], {"batch": batch}),
}


def run(bug, choices):
    trained, curve = train(**choices)
    return curve, checks(trained, curve, choices["batch"])


for name, (bug, choices) in PLANTED.items():
    if bug is None:
        curves[name], table[name] = run(bug, choices)
    else:
        with bugs.in_place(bug):
            curves[name], table[name] = run(bug, choices)

# %%
print(f"{'':20}" + "".join(f"{name:>11}" for name in PASSES))
noticed = {}
for name, found in table.items():
    noticed[name] = [check for check, x in found.items() if not PASSES[check](x)]
    print(f"{name:20}" + "".join(f"{x:10.2g}{' ' if PASSES[check](x) else '!'}" for check, x in found.items()))
for name, check in zip(PLANTED, ("start", "photos", "start", "photos", "moves", None, "gradient", "gradient"), strict=True):
    assert check is None or check in noticed[name], f"{check} does not find {name}"
print("no check finds:", [name for name, by in noticed.items() if not by and name != "right"])

# %% [markdown]
# A `!` marks a check that fails. No check finds more than two of the eight bugs; together they find seven. Only the gradient
# check finds a forgotten part of the backward pass. Without that part the loss falls as fast, and to almost zero: this
# answers the third question. Only two of the eight bugs keep the loss from getting there. No check on twenty captions finds
# photos that are wrong from the beginning, because the network can memorise any pairing of photos and captions. Scenes that
# were held out find this bug, or a person who looks at photos and captions.

# %%
figure = Figure(figsize=(10, 4), layout="constrained")
left, right = figure.subplots(1, 2)
for name, values in curves.items():
    style = {"color": "k", "linewidth": 2.5} if name == "right" else {"linewidth": 1}
    left.semilogy(values, label=name, **style)
left.axhline(np.log(config.V), color="0.6", linestyle=":")
left.set(xlabel="training step", ylabel="nats per word (dotted: log V)")
left.legend(fontsize=7)
names = list(table)
right.barh(names, [table[name]["photos"] for name in names], color=["k"] + ["0.6"] * (len(names) - 1))
right.axvline(0.5, color="C3")
right.invert_yaxis()
right.set(xlabel="rise of nats per word with the photo of another (red: 0.5)")
see = "left, most bugs hardly change the loss; right, the photo of another must make a caption less probable"
save(figure, "11_checks", see)

# %% [markdown]
# ## Exercises
#
# 1. Apply the start check to a vocabulary of 10,000 words: build such a Config and draw random captions. Check: about 9.3
#    nats per word, and $\log V = 9.21$.
# 2. Plant "h not carried to the step before" and "context's gradient from the output layer lost" from `satnp.proof.bugs`.
#    Check: the error of the gradient is 0.032 and 0.0078; no other check fails.
# 3. Set `config.penalty` to 5 and train. Check: "overfit" still passes. The spread over locations of $\sum_t \alpha_{ti}$
#    (standard deviation, mean over the captions, padding left out) falls from 0.1 to 0.01.
# 4. Write the loop of `backward` for one step, $T = 1$, on paper. Which of the four parts of $dh_0$ are there, and which of
#    $dh_1$? Check with the recorded parts: of $h_0$ the first is 0, and the three others are not.
# 5. Look for "wrong photos": train 60 steps on 200 scenes, with right and with wrong photos, and print the nats per word of
#    50 scenes of split "val" (the first caption of each scene). Check: about 1.12 and 1.16. Would you have noticed? Find a
#    check that shows it more clearly.

# %% [markdown]
# ## Next
#
# Soft attention is complete. In lesson 12 the captioner looks at one location at a time. The likelihood then has no gradient
# with respect to the scores, and something else must take its place.
