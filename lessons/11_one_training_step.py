# %% [markdown]
# # 11 One training step: everything together
#
# - time: 75 minutes
# - cpu: 40 seconds
# - before: 02, 04, 06, 07, 09, 10
# - equations: Xu et al. 2015, eqs. 1-7, 13 and 14
# - about: satnp.captioners.show_attend_tell.backward
#
# All the pieces are known: embedding, LSTM, scores, softmax, context, gate, output, penalty. This lesson puts them in one
# forward and one backward pass. The one idea: an array that is read in k places gets a gradient of k parts, and the bugs of
# a captioner are the parts that were forgotten. Then twenty captions are learned by heart, and five checks are tried on
# eight planted bugs.

# %% [markdown]
# ## Predict
#
# 1. A new captioner knows V words and has learned nothing. A caption has T words to predict. What is its loss, about?
# 2. h_t is the LSTM's state after word t. In which places of the model is it read?
# 3. Someone forgets one of these places in the backward pass. Does the loss still fall? Does it still reach almost zero on
#    twenty captions?

# %%
import numpy as np
from kit import near, save, show
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

from satnp.arrays import optim
from satnp.arrays.parameters import Parameters
from satnp.captioners import show_attend_tell as sat
from satnp.captioners.contract import Batch
from satnp.data.captions import END, START, Vocabulary, pad
from satnp.data.scenes import make_scenes
from satnp.encoders import small
from satnp.proof import bugs
from satnp.proof.gradcheck import numeric_gradient

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
# Twenty rendered scenes with one true caption each. A caption is ids with `<start>` (1) first and `<end>` (2) last, then
# `<pad>` (0). The decoder is given word t-1 and must predict word t, so one array serves twice: `captions[:, :-1]` goes in,
# `captions[:, 1:]` is wanted, and `mask` is 1 where a wanted word counts (lesson 07).
#
# The encoder is a small CNN with random weights that stay as they are. Random features are enough to tell twenty photos
# apart, and the annotations need be computed only once.

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
# Read the two listings with the equations at hand. Before the loop: everything that depends only on the photo and on the
# given words. In the loop, `loop_forward`: what needs h_{t-1}, which is scores, weights, context, gate and LSTM. After it:
# the words, for all steps in one product. Lines that begin with `if config.hard` belong to lesson 12.

# %%
show(sat.forward)
show(sat.loop_forward)
loss, cache = sat.forward(params, config, batch, sat.Noise())
expected = float(mask.sum(axis=1).mean()) * np.log(config.V)
print(f"loss without the penalty {cache.nll:.2f} nats a caption; T log V = {expected:.2f}")
for name in ("alphas", "h_prev", "z"):
    print(name, getattr(cache, name).shape, "(T, N, ...)")

# %% [markdown]
# The first question: with V words about equally likely each costs log V, and a caption T log V. It is the first number to
# look at in any new training. Here it is a little higher, because the random weights already prefer some words.
#
# ### Backward: count the readers
#
# The chain rule (lesson 01): the gradient of an array is the sum over all places where it was read. So list the readers.
# (f_att is the paper's name for what makes the scores, lesson 08.)
#
#     h_t    deep output of word t (L_h);  LSTM of step t+1 (W_h);  f_att of step t+1 (W_s);  gate of step t+1     4 parts
#     c_t    h_t = o_t tanh(c_t);  c_{t+1} = f_{t+1} c_t + ...                                                     2
#     z_t    LSTM of step t (W_z);  deep output of word t (L_z)                                                    2
#     E[y]   LSTM of step t (W_x);  deep output of word t                                                          2
#     alpha  context of step t;  penalty                                                                           2
#     a_i    context of every step;  keys a_i W_a;  the mean that makes h_0 and c_0                                3
#
# In the loop, `loop_backward`, time runs backwards. dh is what h_t has collected: `dh_out[t]` from its own word, and, from
# the step after, LSTM + attention + gate. Put the listings beside the forward ones and read them from the top: they are the
# forward pass read from the bottom.

# %%
show(sat.backward)
show(sat.loop_backward)

# %% [markdown]
# ### Learning twenty captions by heart
#
# A training step: zero the gradients, forward, backward, clip, Adam. Nothing else. (Our products are so small that a second
# thread inside them would only wait for the first: `threadpool_limits`.)


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
print("said exactly as taught:", sum(a == b for a, b in zip(said, sentences, strict=True)), "of", len(sentences))
for words in said[:3]:
    print("  ", " ".join(words))

# %% [markdown]
# ### The encoder learns too
#
# `backward` without `frozen` returns dannotations, the three parts summed. It is the upstream gradient of the encoder's own
# backward pass (lesson 04), and both then take a step. A few steps, to see that it runs:

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
# The parts of each gradient, in numbers. Three small functions of the backward pass do the adding: `_to_state` for dh,
# `_through_gate` for dz, `_sum` for the annotations. A spy in their place notes what each is given. The world is tiny and
# in float64, as in every gradient check.

# %%
rng = np.random.default_rng(0)
tiny = sat.Config(V=11, D=5, M=3, H=4, A=6, penalty=0.7, dropout=0.0)
N, T, L = 2, 4, 7
tiny_params = Parameters(sat.shapes(tiny), flat=0.7 * rng.standard_normal(sat.init(tiny, rng).flat.size))
tiny_mask = np.array([[1.0, 1, 1, 1], [1, 1, 1, 0]])
tiny_batch = Batch(rng.standard_normal((N, L, tiny.D)), rng.integers(4, tiny.V, (N, T + 1)), tiny_mask)
adders = {name: getattr(sat, name) for name in ("_to_state", "_through_gate", "_sum")}
noted = {name: [] for name in adders}


def spy(name):
    def watched(*parts, **where):
        noted[name].append(parts)
        return adders[name](*parts, **where)

    return watched


for name in adders:
    setattr(sat, name, spy(name))
_, tiny_cache = sat.forward(tiny_params, tiny, tiny_batch, sat.Noise())
grads = tiny_params.zeros_like()
dannotations = sat.backward(tiny_cache, grads)
for name, adder in adders.items():
    setattr(sat, name, adder)

print("|dh| by part    own word     LSTM  attention     gate")
for t, (own, lstm, attention, gate, weight) in zip(range(T - 1, -1, -1), noted["_to_state"], strict=True):
    print(f"of h_{t}      {size(own):12.4f} {size(lstm):8.4f} {size(attention):10.4f} {size(gate * weight):8.4f}")
print("|dz| by part    output     LSTM")
for t, (output, lstm, _) in zip(range(T, 0, -1), noted["_through_gate"], strict=True):
    print(f"of z_{t}      {size(output):10.4f} {size(lstm):8.4f}")
print("|da| by part: mean of h_0, c_0 {:.4f}, context {:.4f}, keys {:.4f}".format(*map(size, noted["_sum"][0])))

# %% [markdown]
# h_0 has no word of its own: 0. All others are there, and which is largest changes from step to step. Lose one, and what is
# left still points downhill most of the time. That is why such a bug can live for years.

# %% [markdown]
# ## Check by number
#
# The whole model at once: each parameter array and the annotations against the complex step.

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
# That costs a forward pass for each parameter. For large models take one random direction d over all parameters: the
# derivative along it, one complex step, against the sum of gradient times d.


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
# A captioner that is wrong still trains. Here are five checks that take seconds:
#
#     start     loss before training / (T log V)                     wanted: within 10 % of 1
#     overfit   nats per word after 120 steps on twenty captions     wanted: below 0.1
#     photos    rise of nats per word when each caption is given     wanted: above 0.5
#               the photo of another
#     moves     how much of alpha's weight moves from word to word   wanted: above 0.02
#     gradient  error of the gradient along one random direction     wanted: below 1e-10
#
# First on the right model.


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
# Now eight bugs. Predict which check notices each.
#
# - *weights 10 times too large* at the start
# - *target given*: word t goes in where word t-1 should
# - *padding counted*: the mask forgotten in the loss
# - *photo lost*: every caption sees the mean of all photos
# - *state cancels*: f_att does not hear h (lesson 08), so W_s might as well be 0
# - *wrong photos*: the list of photos and the list of captions are out of step by one, from the beginning
# - *attention's dh lost* and *c not carried*: two forgotten parts of the backward pass, from the zoo in `satnp.proof.bugs`

# %%
zoo = {bug.name: bug for bug in bugs.BUGS}
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
    assert check is None or check in noticed[name], f"{name} is not noticed by {check}"
print("no check notices:", [name for name, by in noticed.items() if not by and name != "right"])

# %% [markdown]
# Each `!` is a check that fails. No check finds more than two of the eight bugs; together they find seven. A forgotten part
# of the backward pass is seen by the gradient check alone: the loss falls as fast without it, to almost nothing, which
# answers the third question. Only two bugs keep the loss from getting there. And photos that are out of step from the
# beginning are seen by no check on twenty captions, because any pairing can be learned by heart. Only scenes that were held
# out, or your eyes, find that one.

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
right.set(xlabel="rise of nats per word with another's photo (red: wanted at least)")
save(figure, "11_checks", "left, most bugs hardly show in the loss; right, with another's photo a caption must get worse")

# %% [markdown]
# ## Exercises
#
# 1. The start check at V = 10,000: build such a Config, draw random captions. Check: 9.3 nats a word, log V = 9.21.
# 2. Plant "h not carried to the step before" and "context's gradient from the output layer lost" from `satnp.proof.bugs`.
#    Check: the gradient is off by 0.032 and 0.0078; no other column notices.
# 3. Set config.penalty to 5 and train. Check: "overfit" still passes. The spread over locations of sum_t alpha_ti (standard
#    deviation, mean over captions) falls from 0.12 to 0.01.
# 4. Write the loop of `backward` for one step, T = 1, on paper: which of the four parts of dh are there? Check with the
#    spy: for h_0 the own word is 0, the three others are not.
# 5. Look for "wrong photos": train 60 steps on 200 scenes, in and out of step, and print the nats per word of 50 scenes of
#    split "val". Check: about 1.12 and 1.14. Would you have believed it? Find a check that shows it more clearly.

# %% [markdown]
# ## Next
#
# Soft attention is complete. Lesson 12 looks at one place at a time, and finds that its gradient has nowhere to flow.
