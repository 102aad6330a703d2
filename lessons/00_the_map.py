# %% [markdown]
# # 00 The map: a photo becomes a sentence
#
# - time: 45 minutes
# - cpu: 20 seconds
# - before: nothing
# - equations: Xu et al. 2015, eqs. 1-7 and 13
# - about: satnp.reference.show_attend_tell.word_forward
#
# A caption is made in a loop, one word at a time, and the network looks at the photo again for each word. One step of the
# loop computes a score for each location of the photo, turns the scores into weights, takes the weighted mean of the
# vectors at the locations, and predicts the next word. In this lesson you follow a trained network through all of it,
# array by array. The other lessons explain how each part works and derive its gradient; you need none of that today.

# %% [markdown]
# These letters for sizes are used in all lessons:
#
# | | meaning | in today's network |
# |---|---|---|
# | $N$ | photos at once | 1 |
# | $L$ | locations, the cells of a grid over the photo | 8 x 8 = 64 |
# | $D$ | numbers that describe one location | 128 |
# | $H$ | numbers in the state of the decoder | 128 |
# | $M$ | numbers that represent a word | 64 |
# | $A$ | numbers in which a location and the state are compared | 64 |
# | $V$ | words in the vocabulary | 27 |
# | $T$ | words of the sentence, with its end | 11 |
#
# The network was trained for 218 seconds on rendered scenes, each with five sentences (`lessons/data/README.md`). The
# scene below was not among them. Here all numbers are float64, so that two ways to compute the same thing agree to 15
# digits. In the code, `p` holds the learned arrays of the decoder, such as `p.W_h`; in the text, $p$ is a probability.

# %%
from dataclasses import replace

import numpy as np
from kit import DATA, graph, near, save, show
from matplotlib.figure import Figure

from satnp import load
from satnp.captioners import show_attend_tell
from satnp.captioners.contract import Batch
from satnp.data.scenes import is_true, make_scenes
from satnp.encoders import small
from satnp.reference import show_attend_tell as reference

np.set_printoptions(precision=3, suppress=True, linewidth=78)
model = load(DATA / "scenes.npz")
model = replace(model, params=model.params.on(model.params.flat.astype(float)))
encoder, p = model.params.part("encoder"), model.params.part("decoder")
print(f"{model.params.flat.size:,} numbers were learned:")
for name, x in model.params.items():
    print(f"  {name:14} {x.shape}")

# %%
scenes = make_scenes(100, "test", seed=0)
scene = scenes[2]
photo = scene.image
print("photo", photo.shape, photo.dtype)
for thing in scene.objects:
    left, top, right, bottom = thing.box
    print(f"  a {thing.size} {thing.colour} {thing.shape}, columns {left} to {right}, rows {top} to {bottom}")
print("three of its five sentences:", *scene.captions[:3], sep="\n  ")

# %%
figure = Figure((3.4, 3.4))
ax = figure.subplots()
ax.imshow(photo)
ax.set_xticks(range(0, 65, 8))
ax.set_yticks(range(0, 65, 8))
ax.grid(alpha=0.4)
ax.set_xlabel("column (pixels)")
ax.set_ylabel("row (pixels)")
save(figure, "00_photo", "two triangles and a cross; the lines bound the 8 x 8 locations")

# %% [markdown]
# ## Predict
#
# The photo consists of $64 \cdot 64 \cdot 3 = 12288$ numbers. The encoder, a small convolutional network, turns it into
# one vector of $D = 128$ numbers for each of the 64 cells. Are these fewer numbers than in the photo, or more? The encoder
# has four stages. From 64 x 64 pixels to 8 x 8 cells, how many of them must halve the sides of the grid?

# %% [markdown]
# ## Run
#
# Each of the four stages is a convolution (lesson 03). The first one computes only every second row and column; the two in
# the middle have a pooling, which keeps the largest of four neighbours (lesson 04). The result is called the annotations:
# `annotations[n, l]` is the vector of location $l$ of photo $n$.

# %%
annotations, (stages, _) = small.forward(encoder, model.encoder_config, photo[None])
print("photo         ", photo[None].shape, photo.size, "numbers")
for k, stage in enumerate(stages):
    print(f"stage {k}        {(stage.pool or stage.relu).out.shape}")
print("annotations   ", annotations.shape, annotations.size, "numbers")

# %% [markdown]
# They are a third fewer: $64 \cdot 128 = 8192$. Three stages halve the sides, the first three: 64, 32, 16, 8. The 64 cells
# are now in one row, in reading order: location 10 is row 1, column 2 (counted from 0). No later step uses the photo itself.
#
# The decoder starts from the mean of the 64 vectors, in which all locations are mixed. Two small layers turn it into the
# state `h` and the cell `c` of an LSTM (lesson 05; this cell is a vector and has nothing to do with the cells of the grid).
# `keys` is the part of the scores that does not depend on the state, so it is computed once per photo. The vocabulary
# begins with four marks: padding, the start and the end of a sentence, and a word that is not in the vocabulary.

# %%
mean = annotations.mean(axis=1)
h = np.tanh(mean @ p.W_h0 + p.b_h0)
c = np.tanh(mean @ p.W_c0 + p.b_c0)
keys = annotations @ p.W_a + p.b_a  # compared with the state in eq. 4
word = 1  # the id of <start>
print("mean", mean.shape, " h", h.shape, " c", c.shape, " keys", keys.shape)
for k in range(0, 27, 9):
    print(f"words {k:2} to {k + 8:2}:", *model.vocabulary.words[k : k + 9])

# %% [markdown]
# ## Predict
#
# The first word of every sentence is "a" or "there". Does the network need attention to choose it? Two numbers show it:
# the largest weight $\alpha_i$ of a location (if all weights are equal, each is $1/64 = 0.016$), and the gate $\beta$
# between 0 and 1, which multiplies the context, that is, the weighted mean of the 64 vectors. Which values do you expect
# for the first word, and which for the word "cyan"?

# %% [markdown]
# ## Run
#
# One step of the loop, in NumPy alone. To the right of each line are the number of its equation in the paper and the shape
# of its result.


# %%
def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    return np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)


def turn(word, h, c, annotations, keys):
    """One step for N photos: word (N,), the word before -> p of the next word (N, V), h, c, and all arrays of the step."""
    query = h @ p.W_s  #                                                    (N, A)
    scores = np.tanh(keys + query[:, None]) @ p.v + p.c_a  # eq. 4          (N, L)
    alpha = softmax(scores)  #                               eq. 5          (N, L)
    context = (alpha[:, :, None] * annotations).sum(axis=1)  # eq. 13       (N, D)
    beta = sigmoid(h @ p.W_beta + p.b_beta)  #               section 4.2.1  (N, 1)
    z = beta * context  #                                                   (N, D)
    Ey = p.E[word]  #                                                       (N, M)
    gates = Ey @ p.W_x + h @ p.W_h + z @ p.W_z + p.b  #      eq. 1          (N, 4H)
    i, f, o, g = np.split(gates, 4, axis=1)  #               four of        (N, H)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)  #          eq. 2          (N, H)
    h = sigmoid(o) * np.tanh(c)  #                           eq. 3          (N, H)
    hidden = np.tanh(Ey + h @ p.L_h + z @ p.L_z + p.b_m)  #  eq. 7          (N, M)
    logits = hidden @ p.L_o + p.b_o  #                       before softmax (N, V)
    return softmax(logits), h, c, dict(locals())


prob, h1, c1, made = turn(np.array([word]), h, c, annotations, keys)
for name in "query scores alpha context beta z Ey gates c h hidden logits".split():
    print(f"  {name:8} {str(made[name].shape):10} from {made[name].min():7.3f} to {made[name].max():7.3f}")

# %%
for k in np.argsort(-prob[0])[:4]:
    print(f"p({model.vocabulary.words[k]}) = {prob[0, k]:.4f}")
print(f"largest alpha {made['alpha'].max():.3f}, beta {made['beta'][0, 0]:.3f}")
firsts = [caption.split()[0] for scene in scenes for caption in scene.captions]
for first in ("a", "there"):
    print(f"{firsts.count(first) / len(firsts):.3f} of the true sentences begin with {first!r}")

# %% [markdown]
# No. The weights differ from cell to cell, but the gate multiplies the context by 0.009, so attention has almost no effect
# on the first word. (The photo still has one, through the mean and `h`.) Nor does $p = 0.633$ for "a" mean that the network
# is unsure about the photo: about two thirds of the true sentences begin with "a" and the others with "there", and the
# photo does not say which.
#
# ## Look
#
# Here is the step as a block map, with the two layers before it. Each box has the name of an array, its shape in today's
# network, and the formula that makes it; an arrow goes from an array to each array that is computed from it. `h` and `c`
# are the state before the step, `h_new` and `c_new` the state after it, and `i`, `f`, `o` and `g` are the four parts of
# `gates`. The state `h` is used in three places, the annotations `a` in four. From lesson 01 on, such drawings also have a
# dashed arrow back for each arrow forward: the gradient.

# %%
letters = "W_h0 b_h0 W_c0 b_c0 W_a b_a W_s v c_a W_beta b_beta E W_x W_h W_z b L_h L_z b_m L_o b_o".split()
values = {name: p[name] for name in letters} | {
    "photo": photo[None], "word": np.array([word]), "a": annotations, "h": h, "c": c, "keys": keys, "h_new": h1, "c_new": c1,
    "p": prob, "sigmoid": sigmoid, "softmax": softmax,
    "encoder": lambda photo: small.forward(encoder, model.encoder_config, photo)[0],
} | {name: made[name] for name in "scores alpha context beta z Ey gates i f o g hidden".split()}  # fmt: skip
steps = [
    ("a", "encoder(photo)", {"photo": None}),
    ("h", "np.tanh(a.mean(1) @ W_h0 + b_h0)", {"a": None}),
    ("c", "np.tanh(a.mean(1) @ W_c0 + b_c0)", {"a": None}),
    ("keys", "a @ W_a + b_a", {"a": None}),
    ("scores", "np.tanh(keys + (h @ W_s)[:, None]) @ v + c_a", {"keys": None, "h": None}),
    ("alpha", "softmax(scores)", {"scores": None}),
    ("context", "(alpha[:, :, None] * a).sum(1)", {"alpha": None, "a": None}),
    ("beta", "sigmoid(h @ W_beta + b_beta)", {"h": None}),
    ("z", "beta * context", {"beta": None, "context": None}),
    ("Ey", "E[word]", {"word": None}),
    ("gates", "Ey @ W_x + h @ W_h + z @ W_z + b", {"Ey": None, "h": None, "z": None}),
    ("c_new", "sigmoid(f) * c + sigmoid(i) * np.tanh(g)", {"c": None, "gates": None}),
    ("h_new", "sigmoid(o) * np.tanh(c_new)", {"gates": None, "c_new": None}),
    ("hidden", "np.tanh(Ey + h_new @ L_h + z @ L_z + b_m)", {"Ey": None, "h_new": None, "z": None}),
    ("p", "softmax(hidden @ L_o + b_o)", {"hidden": None}),
]
see = "from the photo at the top to the probabilities p of the next word at the bottom; one step of the loop"
graph("00_map", steps, values, {}, {}, see)

# %% [markdown]
# ## Predict
#
# The most probable word is the next word of the sentence, and it is `word` in the next step. The loop ends at the word
# `<end>`. For which words will the gate be open, and which cells will have the largest weight at the two words "triangle"?
#
# ## Run


# %%
def cell_of(alpha):
    """The row and the column of the largest weight, and which object overlaps that cell."""
    row, column = divmod(int(alpha.argmax()), 8)
    for thing in scene.objects:
        x0, y0, x1, y1 = thing.box
        if x0 < 8 * column + 8 and 8 * column < x1 and y0 < 8 * row + 8 and 8 * row < y1:
            return f"({row}, {column}) {thing.colour} {thing.shape}"
    return f"({row}, {column}) nothing"


words, alphas, betas, log_prob, never = [], [], [], 0.0, 0.0  # `never` is for the check of the decoding below
print("  t  word        p    beta   largest alpha, its cell, what is there")
while word != 2 and len(words) < 20:  # 2 is <end>
    prob, h, c, made = turn(np.array([word]), h, c, annotations, keys)
    word = int(prob[0].argmax())
    log_prob += np.log(prob[0, word])
    unsaid = [0, 1, 3] if words else [0, 1, 2, 3]  # <pad>, <start>, <unk>, and <end> as the first word
    never += np.log(1 - prob[0, unsaid].sum())
    words.append(model.vocabulary.words[word])
    alphas.append(made["alpha"][0])
    betas.append(made["beta"][0, 0])
    numbers = f"{prob[0, word]:.3f}  {betas[-1]:.3f}   {alphas[-1].max():.3f}"
    print(f" {len(words):2}  {words[-1]:8} {numbers}  {cell_of(alphas[-1])}")
print(" ".join(words), f"  log p = {log_prob:.3f}")

# %% [markdown]
# ## Look
#
# Read the table word by word. The gate is open at words for sizes, colours and shapes ("small", "cyan", "triangle": $\beta$
# above 0.8), and almost closed at words that follow from the grammar ("is", "of", `<end>`: below 0.2). It is almost closed
# at "left" too, although this word depends on the photo: the LSTM also has what it kept from the earlier steps. Where only
# one word can follow ("of" after "left"), $p$ is near 1. Where several sentences are true ("small" or not, "left of" or "to
# the left of"), the network has to choose, and $p$ is low although nothing is wrong. The training data do not say where to
# look: they are photos and sentences.

# %%
figure = Figure((9, 3.9), layout="constrained")
axes = figure.subplots(2, 6, sharex=True, sharey=True)
for ax, said, alpha in zip(axes.flat, words, alphas, strict=False):
    ax.imshow(photo, extent=(0, 8, 8, 0))
    shown = ax.imshow(alpha.reshape(8, 8), "gray", vmin=0, vmax=0.6, alpha=0.6, extent=(0, 8, 8, 0))
    ax.set_title(said, fontsize=10)
    ax.set_xticks([0, 4, 8])
    ax.set_yticks([0, 4, 8])
axes[1, 5].axis("off")
figure.supxlabel("column of the grid (cells)", fontsize=10)
figure.supylabel("row of the grid (cells)", fontsize=10)
figure.colorbar(shown, ax=axes, label="alpha, the weight of a cell")
save(figure, "00_where_it_looked", "white cells on the cyan triangle while it is named, then on the blue")

# %% [markdown]
# ## Check by number
#
# The lines above are the whole decoder. Now compare them with satnp, in three ways. `satnp/reference/show_attend_tell.py`
# is the decoder step by step as in the paper, with the caches that a backward pass needs. Its loss of this sentence,
# without the penalty of eq. 14 (lesson 10), must be minus our $\log p$. Below is its `word_forward`, the part of a step
# after attention; find in it the lines of `turn`. (`look` is `alpha`, `gate_forward` computes `beta` and `z`,
# `deep_output_forward` computes `hidden`; `Word` collects the caches, and the masks belong to dropout, which is off here.)

# %%
show(reference.word_forward)
captions = np.array([model.vocabulary.encode(words[:-1])])
batch = Batch(annotations, captions, np.ones((1, len(words))))
config, noise = replace(model.config, penalty=0.0), show_attend_tell.Noise()
near("the loss of the reference is -log p", reference.forward(p, config, batch, noise)[0], -log_prob, 1e-12)

# %% [markdown]
# Training uses a faster form of the same equations, `satnp/captioners/show_attend_tell.py`, which lesson 15 explains. It
# must have the same loss. And satnp's decoding must find the same words, the same probability and the same weights.
# Decoding never outputs `<pad>`, `<start>` or `<unk>`, nor `<end>` as the first word, so it divides $p$ by the sum of the
# probabilities of the words that remain.

# %%
loss, _ = show_attend_tell.forward(p, config, batch, noise)
near("the loss in training is -log p", loss, -log_prob, 1e-12)
found = model.describe(model.decode(annotations, beam=1)[0])
print("satnp says:", found)
assert found.words == words[:-1]
near("log p of the sentence", log_prob - never, found.log_prob, 1e-12)
near("alpha of all words", np.array(alphas).reshape(-1, 8, 8), found.alpha, 1e-12)
near("alpha sums to 1 at each word", np.sum(alphas, axis=1), np.ones(len(words)), 1e-12)

# %% [markdown]
# ## Break it
#
# A sum over locations does not depend on the order of the locations. So shuffle the 64 vectors before the decoder reads
# them. Which of these will happen: another sentence, "right of" in place of "left of", or no change?

# %%
order = np.random.default_rng(0).permutation(64)
found = model.describe(model.decode(annotations[:, order], beam=1)[0])
print("shuffled: ", found)
near("its alpha is shuffled alike", found.alpha.reshape(-1, 64), np.array(alphas)[:, order], 1e-12)

# %% [markdown]
# No change. The decoder does not know where a cell is, unless the vector contains this. For words such as "left of", the
# encoder therefore adds the row and the column of each cell to the input of its last stage (`satnp/encoders/small.py`; Liu
# et al. 2018, CoordConv).
#
# Now take attention away: give the decoder the mean of all vectors at each location, so that all words see the same
# context. How many of a hundred unseen scenes does it still describe truly? And a bug that people do make: PyTorch, for
# example, keeps the four gates of an LSTM in the order i, f, g, o (documentation of `torch.nn.LSTM`). Which sentences come
# out when the weights are read in that order? All shapes are right, so no error is raised.

# %%
all_annotations = model.annotate(np.stack([scene.image for scene in scenes]))


def describe_all(turn, annotations=all_annotations):
    """The greedy sentences of all scenes, and how many are true."""
    mean = annotations.mean(axis=1)
    h, c = np.tanh(mean @ p.W_h0 + p.b_h0), np.tanh(mean @ p.W_c0 + p.b_c0)
    keys, word, ids = annotations @ p.W_a + p.b_a, np.ones(len(mean), int), []
    for _ in range(20):
        prob, h, c, _ = turn(word, h, c, annotations, keys)
        word = prob.argmax(axis=1)
        ids.append(word)
    said = [" ".join(model.vocabulary.decode(row)) for row in np.stack(ids, axis=1)]
    return said, sum(map(is_true, said, scenes))


said, true = describe_all(turn)
print(f"as trained: {true} of 100 are true")
assert true >= 95


# %%
def blind(word, h, c, annotations, keys):
    return turn(word, h, c, np.repeat(annotations.mean(axis=1, keepdims=True), 64, axis=1), keys)


def misread(word, h, c, annotations, keys):
    """The columns of o and g exchanged."""
    H, kept = 128, [p[name].copy() for name in ("W_x", "W_h", "W_z", "b")]
    for x in (p.W_x, p.W_h, p.W_z, p.b):
        x[..., 2 * H :] = np.roll(x[..., 2 * H :], H, axis=-1)
    made = turn(word, h, c, annotations, keys)
    for x, was in zip((p.W_x, p.W_h, p.W_z, p.b), kept, strict=True):
        x[...] = was
    return made


for name, broken in (("blind", blind), ("gates i, f, g, o", misread)):
    said, true = describe_all(broken)
    print(f"{name}: {true} of 100 are true, for example\n  {said[2]!r}")
    assert true < 30

# %% [markdown]
# Without attention the sentence is still good English: the grammar comes from the LSTM, and the facts come through
# attention. With the gates in the wrong order the words make no sense, but no line of code failed. A bug can also have a
# smaller effect: the network runs, learns, and ends a little worse. Only a comparison of numbers shows it, and so each
# lesson has a check.

# %% [markdown]
# ## Exercises
#
# 1. How many of the learned numbers belong to the decoder? Add the sizes of the arrays in `p.items()`. (233,949 of
#    334,461.)
# 2. Which other words were possible at step 9? Start the loop again, keep `prob` of each step and print its three largest
#    entries. (blue .507, big .487, small .002: the triangle is blue and big, and a sentence may leave out the size.)
# 3. Write a step with $\beta = 1$ at all words, as a copy of `turn` with one line changed. How many of the 100 sentences
#    are true? (15: the other weights were trained with an almost closed gate at words such as "is".)
# 4. Start `describe_all` from $h = 0$ and $c = 0$. How many are true? (0: in training the LSTM never started from there.
#    Scene 2 becomes the sentence "triangle".)
# 5. Annotate mirrored photos, `scene.image[:, ::-1]`, and compare the sentences with the scenes as they were. Which of the
#    sentences do you expect to be true? Count the true ones, and count them again separately for "left of" and for the
#    rest. (65: of the 35 sentences with "left of" none is true, of the 65 with above, over, below or under all are.)

# %% [markdown]
# ## Next
#
# You have seen all arrays of the network. Lesson 01 starts where learning starts: with the derivative of one number by
# another, and then by a matrix. The map:
#
# | what | in satnp | lesson |
# |---|---|---|
# | the derivative of a product | `layers.affine_backward` | 01 |
# | is a derivative right? | `proof.gradcheck` | 02, 07b |
# | photo to annotations | `layers.conv2d_backward`, `max_pool_backward`, `relu_backward` | 03, 04 |
# | eqs. 1-3, the LSTM | `layers.lstm_cell_forward`, `lstm_cell_backward` | 05, 06 |
# | words in and words out | `layers.embedding_backward`, `vocabulary_backward` | 07 |
# | eq. 4, scores | `layers.additive_scores_backward`, `dot_scores_backward` | 08 |
# | eqs. 5 and 13, weights and context | `layers.softmax_backward`, `context_backward` | 09 |
# | the gate, and the penalty of eq. 14 | `layers.gate_backward`, `doubly_stochastic_backward` | 10 |
# | one training step | `training.trainer` | 11 |
# | looking at one location: hard attention | `estimators` | 12, 13 |
# | the best sentence, and its scores | `decoding`, `scores` | 14 |
# | speed on a processor, and on a GPU | `arrays.threads`, `arrays.kernels` | 15, 16 |
# | real photos | `cli` | 17 |
# | other captioners, from 2010 to 2018 | `early`, `captioners` | 18 |
# | attention from $h_{t-1}$, from $h_t$, and with two LSTMs | `captioners.adaptive`, `captioners.top_down` | 19 |
# | the sentinel: a word that needs no photo | `captioners.adaptive` | 20 |
# | attention to channels, and a convolution inside the loop | `captioners.sca_cnn` | 21 |
# | rewards for whole captions: SCST | `training.self_critical` | 22 |
# | detectors, a CRF and templates | `early.babytalk`, `early.factors` | 23 |
