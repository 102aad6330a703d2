# %% [markdown]
# # Answers to lesson 11

# %% [markdown]
# ## 1
#
# - hint: `sat.forward` needs a Config with V = 10,000, parameters from `sat.init`, and a `Batch`. The sizes other than V can
#   stay as they are in `config`.
# - hint: `cache.nll` is the mean over the captions of the sum over the words. Divide it by the mean number of words.
#
# With random weights all words are about equally probable, so a word costs about $\log V$ nats. It costs slightly more,
# because the logits are not all equal: by Jensen's inequality, the mean of $-\log p$ is at least $\log V$.

# %%
from dataclasses import replace

wide = replace(config, V=10_000)
draw = np.random.default_rng(3)
random_batch = Batch(annotations, draw.integers(4, wide.V, captions.shape), np.ones_like(mask))
_, wide_cache = sat.forward(sat.init(wide, draw), wide, random_batch, sat.Noise())
per_word = float(wide_cache.nll) / mask.shape[1]
print(f"{per_word:.2f} nats per word, log V = {np.log(wide.V):.2f}")
assert round(np.log(wide.V), 2) == 9.21 and 9.25 < per_word < 9.35

# %% [markdown]
# ## 2
#
# - hint: `zoo` holds the bugs by name, and `bugs.in_place(bug)` plants one for the lines of a `with`.
# - hint: `run` trains, then applies all five checks.
#
# The loss falls to almost zero with both bugs. Only the gradient check compares the gradient with the loss itself.

# %%
errors = {}
for name in ("h not carried to the step before", "context's gradient from the output layer lost"):
    with bugs.in_place(zoo[name]):
        _, found = run(zoo[name], {"batch": batch})
    errors[name] = found["gradient"]
    print(name, "fails:", [check for check, x in found.items() if not PASSES[check](x)], f"{found['gradient']:.2g}")
    assert [check for check, x in found.items() if not PASSES[check](x)] == ["gradient"]
near("errors", list(errors.values()), [0.032, 0.0078], 0.02)

# %% [markdown]
# ## 3
#
# - hint: `config` is a frozen dataclass; `dataclasses.replace(config, penalty=5.0)` makes a new one.
# - hint: `cache.alphas` is (T, N, L). Multiply it by the mask before you sum over the steps.
#
# The penalty is smallest if all locations have the same total weight, T/L (lesson 10). The network has enough freedom to do
# both, so it memorises the captions and spreads the weights.


# %%
def spread(params):
    _, cache = nats(params, batch)
    return float((cache.alphas * mask.T[:, :, None]).sum(axis=0).std(axis=1).mean())


before, weak = spread(params), config
config = replace(config, penalty=5.0)
strong, _ = train(batch)
own, _ = nats(strong, batch)
after, config = spread(strong), weak
print(f"nats per word {own:.3f}, spread {before:.3f} -> {after:.3f}")
assert own < 0.1 and 0.09 < before < 0.15 and after < 0.02

# %% [markdown]
# ## 4
#
# - hint: Which functions of the model have $h_0$ as an input? Which would have $h_1$, if there is no step 2?
#
# $h_0$ is used by the LSTM, `f_att` and gate of step 1, but by no output layer: three parts. $h_1$ is used by the output
# layer of word 1 alone, since there is no step 2: one part. In the recorded parts of the lesson $T$ is 4, so $h_3$ shows all
# four.

# %%
(first_part, lstm, attention, gate, weight), _ = noted["_to_state"][T - 1]
print("parts of dh_0:", *(f"{size(x):.4f}" for x in (first_part, lstm, attention, gate * weight)))
assert size(first_part) == 0 and min(map(size, (lstm, attention, gate * weight))) > 0

# %% [markdown]
# ## 5
#
# - hint: Make the vocabulary from the 200 captions; the wrong photos are `np.roll(annotations, 1, axis=0)`.
# - hint: A check that shows more must compare something with the photo itself. The "photos" check does, on held-out scenes.
#
# The two losses differ by .03 to .04 nats, which is easily overlooked: in 60 steps the network learns mostly the language,
# which is the same for both. The clearer check is "photos" on the held-out scenes: by how much does the loss rise if each
# caption gets the photo of another? With right photos it rises by .04 after 60 steps and by .33 after 240. With wrong
# photos it falls, by .01 and .10. (The cell below trains 60 steps; give `train` 240 for the other two numbers.)

# %%
many, held_out = make_scenes(200, "train", seed=0), make_scenes(50, "val", seed=0)
words_of = {"train": [s.captions[0].split() for s in many], "val": [s.captions[0].split() for s in held_out]}
vocabulary = Vocabulary.build(words_of["train"], min_count=1)
config = replace(config, V=len(vocabulary))
batches = {}
for split, chosen in (("train", many), ("val", held_out)):
    seen, _ = small.forward(encoder_params, encoder, np.stack([scene.image for scene in chosen]))
    batches[split] = Batch(seen, *pad([vocabulary.encode(words) for words in words_of[split]]))
result = {}
for name, shift in (("right photos", 0), ("wrong photos", 1)):
    mask = batches["train"].mask
    trained, _ = train(batches["train"]._replace(annotations=np.roll(batches["train"].annotations, shift, axis=0)), steps=60)
    mask = batches["val"].mask
    own, _ = nats(trained, batches["val"])
    other, _ = nats(trained, batches["val"]._replace(annotations=np.roll(batches["val"].annotations, 1, axis=0)))
    result[name] = own, other - own
    print(f"{name}: {own:.3f} nats per word of held-out scenes, with the photo of another {other - own:+.3f}")
assert abs(result["right photos"][0] - 1.12) < 0.03 and abs(result["wrong photos"][0] - 1.15) < 0.03
assert result["right photos"][1] > 0 > result["wrong photos"][1]
