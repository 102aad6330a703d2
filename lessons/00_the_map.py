# %% [markdown]
# # 00 The map: a photo becomes a sentence
#
# - time: 40 minutes
# - cpu: 20 seconds
# - before: nothing
# - equations: Xu et al. 2015, eqs. 1-7 and 13
# - about: satnp.captioners.show_attend_tell.step
#
# The one idea: a caption is a loop, and at each turn the network looks at the photo anew. A turn makes a score for each
# place in the photo, turns the scores into weights, mixes what is at these places by the weights, and says one word. Here
# you follow a trained network through all of it, array by array. How each part works, and how its gradient is derived, is
# what the other lessons are about; none of it is needed today.

# %% [markdown]
# The letters for sizes, all through the course, and what they are in today's network:
#
#     N    photos at once                                             1
#     L    locations, the cells of a grid laid over the photo    8x8 = 64
#     D    numbers that describe what is at a location              128
#     H    numbers that the decoder has in mind (its state)         128
#     M    numbers that stand for a word                             64
#     A    numbers in which place and state are compared             64
#     V    words in the vocabulary                                   27
#     T    words of the sentence, its end included                   11
#
# The network was trained for four minutes on 5,500 rendered scenes, each with five sentences (`lessons/data/README.md`).
# It has never seen the one below. Numbers are kept as float64 here, so that two ways to compute a thing agree to 15 digits.

# %%
from dataclasses import replace

import numpy as np
from kit import DATA, near, save, show
from matplotlib.figure import Figure

from satnp import load
from satnp.captioners import show_attend_tell
from satnp.data.scenes import is_true, make_scenes
from satnp.encoders import small

np.set_printoptions(precision=3, suppress=True, linewidth=78)
model = load(DATA / "scenes.npz")
model = replace(model, params=model.params.on(model.params.flat.astype(float)))
encoder, p = model.params.part("encoder"), model.params.part("decoder")
print(f"{model.params.flat.size:,} numbers were learnt:")
for name, x in model.params.items():
    print(f"  {name:14} {x.shape}")

# %%
scenes = make_scenes(100, "test", seed=0)
scene = scenes[2]
photo = scene.image
print("photo", photo.shape, photo.dtype)
for thing in scene.objects:
    print(f"  a {thing.size} {thing.colour} {thing.shape}, pixels {thing.box}")
print("people would say:", *scene.captions[:3], sep="\n  ")

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
# The photo is 64 * 64 * 3 = 12,288 numbers. The encoder, a small convolutional network, makes of it one vector of D = 128
# numbers for each of the 64 cells. Does it leave fewer numbers than it was given, or more? In which of its four stages does
# the grid shrink?

# %% [markdown]
# ## Run
#
# The encoder has four stages: a convolution (lesson 03), and in the middle two a pooling that keeps the largest of four
# neighbours (lesson 04). What comes out is called the annotations: `annotations[n, l]` tells what is at location l.

# %%
annotations, (stages, _) = small.forward(encoder, model.encoder_config, photo[None])
print("photo         ", photo[None].shape, photo.size, "numbers")
for k, stage in enumerate(stages):
    print(f"stage {k}        {(stage.pool or stage.relu).out.shape}")
print("annotations   ", annotations.shape, annotations.size, "numbers")

# %% [markdown]
# A third fewer. And 64 cells stand in a row now, row by row of the grid: location 10 is row 1, column 2. Nothing after this
# line sees the photo.
#
# The decoder starts from the mean of the 64 vectors: what is there on the whole, without where. Two small layers make of it
# the state h, what the decoder has in mind, and c, its memory that only the LSTM sees (lesson 05).

# %%
mean = annotations.mean(axis=1)
h = np.tanh(mean @ p.W_h0 + p.b_h0)
c = np.tanh(mean @ p.W_c0 + p.b_c0)
keys = annotations @ p.W_a + p.b_a  # what each location offers for comparison
word = 1  # the id of <start>
print("mean", mean.shape, " h", h.shape, " c", c.shape, " keys", keys.shape)
for k in range(0, 27, 9):
    print(f"words {k:2} to {k + 8:2}:", *model.vocabulary.words[k : k + 9])

# %% [markdown]
# ## Predict
#
# The first word of all sentences is "a" or "there". Does the network need the photo for it? Two numbers will tell: the
# largest weight alpha of a location (1/64 = .016 means it looks everywhere alike) and the gate beta between 0 and 1, by
# which all that is seen is multiplied. What would you expect of them now, and what at the word "cyan"?

# %% [markdown]
# ## Run
#
# One turn of the loop, with NumPy alone. Compare each line with the equation to its right.

# %%
def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    return np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)


def turn(word, h, c, annotations, keys):
    """One turn of the loop for N photos: word (N,) was said last -> p of the next word (N, V), h, c, and what was made."""
    query = h @ p.W_s  #                                                    (N, A)
    scores = np.tanh(keys + query[:, None]) @ p.v + p.c_a  # eq. 4          (N, L)
    alpha = softmax(scores)  #                               eq. 5          (N, L)
    context = (alpha[:, :, None] * annotations).sum(axis=1)  # eq. 13       (N, D)
    beta = sigmoid(h @ p.W_beta + p.b_beta)  #               section 4.2.1  (N, 1)
    z = beta * context  #                                                   (N, D)
    said = p.E[word]  #                                                     (N, M)
    gates = said @ p.W_x + h @ p.W_h + z @ p.W_z + p.b  #    eq. 1          (N, 4H)
    i, f, o, g = np.split(gates, 4, axis=1)  #               four of        (N, H)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)  #          eq. 2          (N, H)
    h = sigmoid(o) * np.tanh(c)  #                           eq. 3          (N, H)
    hidden = np.tanh(said + h @ p.L_h + z @ p.L_z + p.b_m)  # eq. 7         (N, M)
    logits = hidden @ p.L_o + p.b_o  #                                      (N, V)
    return softmax(logits), h, c, dict(locals())


prob, h1, c1, made = turn(np.array([word]), h, c, annotations, keys)
for name in "query scores alpha context beta z said gates i c h hidden logits".split():
    print(f"  {name:8} {str(made[name].shape):10} from {made[name].min():7.3f} to {made[name].max():7.3f}")

# %%
for k in np.argsort(-prob[0])[:4]:
    print(f"p({model.vocabulary.words[k]}) = {prob[0, k]:.4f}")
print(f"largest alpha {made['alpha'].max():.3f}, beta {made['beta'][0, 0]:.3f}")

# %% [markdown]
# No: there are weights, but the gate multiplies what is seen by .009. A first word costs no look. That "a" has p = .633 is
# no doubt about the photo either: two of three sentences that people wrote begin with "a", and one with "there".
#
# The most probable word is said and goes in at the next turn as `word`. That is all: the loop ends at the word <end>.
# Before you run it: at which words will the gate be open, and which cells will have the largest weight at the two words
# "triangle"?

# %%
def cell_of(alpha):
    """The row and the column of the largest weight, and which object overlaps that cell."""
    row, column = divmod(int(alpha.argmax()), 8)
    for thing in scene.objects:
        x0, y0, x1, y1 = thing.box
        if x0 < 8 * column + 8 and 8 * column < x1 and y0 < 8 * row + 8 and 8 * row < y1:
            return f"({row}, {column}) {thing.colour} {thing.shape}"
    return f"({row}, {column}) nothing"


words, alphas, betas, log_prob, never = [], [], [], 0.0, 0.0
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
# Read the table word by word. The gate is open where a word needs the photo ("small", "cyan", "blue"), shut where grammar
# does ("is", "of"). Where a word could not be otherwise ("of" after "left") p is near 1. Where several sentences
# are true ("small" or not, "left of" or "to the left of") the network has to choose, and p is low without anything being
# wrong. Nobody told it where to look: all it was given are sentences.

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
# The lines above are the whole decoder. Held against satnp: its own decoding must find the same words, the same
# probability and the same weights; and its loss of this sentence, as training computes it, must be minus our log p. Decoding
# never says <pad>, <start> or <unk>, nor <end> as the first word, so it divides p by the probability of all other words.

# %%
show(show_attend_tell.step)
found = model.describe(model.decode(annotations, beam=1)[0])
print("satnp says:", found)
assert found.words == words[:-1]
near("log p of the sentence", log_prob - never, found.log_prob, 1e-12)
near("alpha of all words", np.array(alphas).reshape(-1, 8, 8), found.alpha, 1e-12)

# %%
captions = np.array([model.vocabulary.encode(words[:-1])])
mask = np.ones((1, len(words)))
loss, cache = model.loss(annotations, captions, mask, show_attend_tell.Noise())
near("the loss in training is -log p", loss, -log_prob, 1e-12)
near("alpha sums to 1 at each word", np.sum(alphas, axis=1), np.ones(len(words)), 1e-12)

# %% [markdown]
# ## Break it
#
# The sum over locations forgets the order of the locations. So shuffle the 64 vectors before the decoder sees them. Which
# of these will happen: another sentence, "right of" in place of "left of", or nothing at all?

# %%
order = np.random.default_rng(0).permutation(64)
found = model.describe(model.decode(annotations[:, order], beam=1)[0])
print("shuffled: ", found)
near("its alpha is shuffled alike", found.alpha.reshape(-1, 64), np.array(alphas)[:, order], 1e-12)

# %% [markdown]
# Nothing. The decoder does not know where a cell is, unless its vector says so. That is why the encoder writes the row and
# the column of each cell into its last stage (`satnp/encoders/small.py`): without them "left of" could not be learnt.
#
# Now blind it: the weights stay at 1/64, so that it sees the mean of the photo at each word. How many of a hundred unseen
# scenes does it still describe truly? And a bug that people do make: many libraries keep the four gates of an LSTM in the
# order i, f, g, o. What does the network say when its weights are read in that order? No shape is wrong, so nothing stops.

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
# The blind one still speaks good English: the grammar is in the LSTM, the facts come through attention. The misread one
# babbles, but no line of it failed. Most bugs are milder than that: the network runs, learns, and ends a little worse. Only
# a number tells, and this is why each lesson has a check.

# %% [markdown]
# ## Exercises
#
# 1. How many of the learnt numbers belong to the decoder? Add the sizes of what `p.items()` holds. (233,949 of 334,461.)
# 2. What else could have been said at turn 9? Keep `prob` of each turn and print its three largest entries.
#    (blue .507, big .487, small .002: the triangle is both, and people name the size or leave it out.)
# 3. Write a turn with beta = 1 at all words, as a copy of `turn` with one line changed. How many of the 100 are true? (15:
#    the rest of the network was trained to see nothing at "is".)
# 4. Start `describe_all` from h = 0 and c = 0. How many are true? (0: the LSTM never learnt to begin there. Scene 2 becomes
#    the sentence "triangle".)
# 5. Annotate mirrored photos, `scene.image[:, ::-1]`, and ask for the truth about the scenes as they were. First say how
#    many you expect, then count, then count again apart by "left of" and the rest. (65: of the 35 that say "left of" none is
#    true, of the 65 that say above, over, below or under all are.)

# %% [markdown]
# ## Next
#
# You have seen all arrays of the network; lesson 01 starts where learning starts, with the derivative of one number by
# another, then by a matrix. The map:
#
#     what                              in satnp.layers               lesson
#     the derivative of a product       affine_backward                   01
#     is a derivative right?            satnp.proof.gradcheck                   02
#     photo to annotations              conv2d, max_pool, relu        03, 04
#     eqs. 1-3, the LSTM                lstm_cell                     05, 06
#     words in and words out            embedding, vocabulary             07
#     eq. 4, scores                     additive_scores, dot_scores       08
#     eqs. 5 and 13, look and mix       softmax, context                  09
#     beta                              gate                              10
#     learning, all together            satnp.training.trainer                    11
#     looking at one place              satnp.estimators              12, 13
#     the best sentence, and its marks  satnp.decoding, metrics           14
#     fast on a processor, on a GPU     threads, kernels              15, 16
#     real photos                       satnp.cli                         17
