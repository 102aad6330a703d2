# %% [markdown]
# # Answers to lesson 00

# %% [markdown]
# ## 1
#
# - hint: `p` is the part of the parameters that belongs to the decoder; `p.items()` gives names and arrays.
# - hint: An array `x` has `x.size` numbers.
#
# 233,949. The other 100,512 are the weights of the encoder's four convolutions.

# %%
count = sum(x.size for _, x in p.items())
print(f"{count:,} of {model.params.flat.size:,}")
assert count == 233_949 and model.params.flat.size == 334_461

# %% [markdown]
# ## 2
#
# - hint: Start again from the mean of the annotations, and append `prob[0]` to a list in each step.
# - hint: `np.argsort(-prob)[:3]` has the ids of the three most probable words.
#
# Two words are almost equally probable: the triangle is blue, and it is big. Some training sentences name the size and
# others leave it out, so both words are right here.

# %%
mean = annotations.mean(axis=1)
state, cell = np.tanh(mean @ p.W_h0 + p.b_h0), np.tanh(mean @ p.W_c0 + p.b_c0)
last, probs = np.array([1]), []
for _ in range(9):
    prob, state, cell, _ = turn(last, state, cell, annotations, keys)
    probs.append(prob[0])
    last = prob.argmax(axis=1)
top = np.argsort(-probs[8])[:3]
print(*(f"{model.vocabulary.words[k]} {probs[8][k]:.3f}" for k in top))
near("the three largest", probs[8][top], [0.507, 0.487, 0.002], 1e-3)

# %% [markdown]
# ## 3
#
# - hint: Only the line of `beta` changes: it is 1 for each photo.
# - hint: `np.ones((len(h), 1))`.
#
# 15 of 100. The other weights were trained together with a gate that is almost closed at words such as "is" and "of". With
# an open gate these steps get a context that they never had in training.


# %%
def open_gate(word, h, c, annotations, keys):
    scores = np.tanh(keys + (h @ p.W_s)[:, None]) @ p.v + p.c_a
    alpha = softmax(scores)
    z = (alpha[:, :, None] * annotations).sum(axis=1)  # beta = 1
    Ey = p.E[word]
    i, f, o, g = np.split(Ey @ p.W_x + h @ p.W_h + z @ p.W_z + p.b, 4, axis=1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    hidden = np.tanh(Ey + h @ p.L_h + z @ p.L_z + p.b_m)
    return softmax(hidden @ p.L_o + p.b_o), h, c, None


_, true = describe_all(open_gate)
print(f"{true} of 100 are true")
assert abs(true - 15) <= 2

# %% [markdown]
# ## 4
#
# - hint: Copy `describe_all` and change one line. `h` and `c` have a row for each scene and 128 columns.
# - hint: Without a copy: give `describe_all` a step that calls `turn`, but with zeros for `h` and `c` at the first word. At
#   the first word all words are `<start>`, whose id is 1.
#
# None. In training, the first step always started from the state that the two layers make of the mean, so no weight was
# adapted to zeros.


# %%
def from_zero(word, h, c, annotations, keys):
    first = (word == 1).all()
    return turn(word, 0 * h if first else h, 0 * c if first else c, annotations, keys)


said, true = describe_all(from_zero)
print(f"{true} of 100 are true; scene 2: {said[2]!r}")
assert true == 0 and said[2] == "triangle"

# %% [markdown]
# ## 5
#
# - hint: `model.annotate(np.stack([scene.image[:, ::-1] for scene in scenes]))` are the annotations of the mirrored
#   photos.
# - hint: Which words change their truth when left and right are exchanged?
# - hint: `describe_all(turn, annotations)` returns the sentences; `is_true(sentence, scene)` judges one.
#
# 65 of 100. A mirrored scene exchanges left and right and leaves above and below as they are. The sentences describe the
# mirrored photos, so the 35 with "left of" are all false for the scenes as they were, and the other 65 are all true.

# %%
mirrored = model.annotate(np.stack([scene.image[:, ::-1] for scene in scenes]))
said, true = describe_all(turn, mirrored)
left = [(sentence, scene) for sentence, scene in zip(said, scenes, strict=True) if "left of" in sentence]
print(f"{true} of 100 are true; {len(left)} say left of, {sum(is_true(*pair) for pair in left)} of these are true")
assert abs(true - 65) <= 2 and sum(is_true(*pair) for pair in left) == 0
