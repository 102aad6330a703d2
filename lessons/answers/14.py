# %% [markdown]
# # Answers to lesson 14

# %% [markdown]
# ## 1
#
# - hint: "a" occurs once in each reference, so it counts once.
# - hint: Which of the two references is closer in length?
#
# Of four words, "a", "red" and "cross" count: 3/4. The second reference has four words, too, so there is no factor for the
# length.

# %%
sentence, two = ["a a red cross"], [["a red cross", "a big red cross"]]
near("BLEU-1", bleu(sentence, two)[0][0], 0.75, 1e-8)
near("by hand", bleu_by_hand(sentence, two, 1), 0.75)

# %% [markdown]
# ## 2
#
# - hint: In how many of the three photos do people say "red", and in how many "cross"?
# - hint: The captioner's "circle" is not in the references of photo 1. How does its weight change, compared with "red"?
#
# "red" is in the references of one photo of three and weighs $\log 3$. "cross", which the captioner missed, is now in two
# and weighs only $\log(3/2)$. So what the two sentences have in common is a larger part of the reference's vector, and the
# cosine for single words rises from .5 to .663. For pairs all weights are $\log 3$ and the cosine stays .5, so the score is
# $10 \cdot (.663 + .5) / 4 = 2.908$.

# %%
third = cider_by_hand([*candidates, "a green cross"], [*references, ["a green cross"]])
print("CIDEr-D of the photos", third)
near("photo 1", third[0], 2.908, 1e-3)
near("cosine of the words", np.log(3) / np.hypot(np.log(3), np.log(1.5)) / np.sqrt(2), 0.663, 1e-3)

# %% [markdown]
# ## 3
#
# - hint: Let `lengths[i, j]` be the length for the first i words of one and the first j words of the other sentence. How
#   does it follow from the lengths for one word less?
# - hint: If the two last words are equal, it is `lengths[i - 1, j - 1] + 1`. Else one of the two is not used.
# - hint: P is this length divided by the length of the caption, R by that of the reference.
#
# Photo 1: "a red" is common, so P = R = 2/3. Photo 2: "a circle" is common, P = 1 and R = 2/3.


# %%
def longest_common(one, other):
    lengths = np.zeros((len(one) + 1, len(other) + 1), int)
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            lengths[i + 1, j + 1] = lengths[i, j] + 1 if a == b else max(lengths[i, j + 1], lengths[i + 1, j])
    return lengths[-1, -1]


rouge = []
for candidate, (reference,) in zip(candidates, references, strict=True):
    common = longest_common(candidate.split(), reference.split())
    P, R = common / len(candidate.split()), common / len(reference.split())
    rouge.append((1 + 1.2**2) * P * R / (R + 1.2**2 * P))
print("ROUGE-L", np.array(rouge))
near("ROUGE-L", rouge, [0.6667, 0.7722], 1e-4)

# %% [markdown]
# ## 4
#
# - hint: The arguments are those of `beam_search` in the cell with the powers, plus a random generator.
# - hint: Use one generator for each temperature, each with seed 0.
#
# At temperature .5 the probabilities are squared and normalised again, so likely words become more likely: nearly as many
# sentences are true as of greedy decoding (.980). At temperature 2 unlikely words come often, and one wrong word is enough
# to make a sentence false.

# %%
from satnp.decoding import sample  # noqa: E402

shares = []
for temperature in (0.5, 1.0, 2.0):
    found = sample(show_attend_tell, model.params.part("decoder"), model.config, annotations, np.random.default_rng(0),
                   temperature=temperature)  # fmt: skip
    shares.append(np.mean([is_true(str(model.describe(one)), scene) for one, scene in zip(found, scenes, strict=True)]))
    print(f"temperature {temperature}: true {shares[-1]:.3f}")
near("shares", shares, [0.985, 0.900, 0.210], 0.03)

# %% [markdown]
# ## 5
#
# - hint: `search(table, 1, longest)` and `search(table, 2, longest)` return the log-probabilities.
# - hint: Print the two kept partial sentences of beam 2 after each step, beside the greedy one.
#
# At each step the beam keeps the two most probable partial sentences. The greedy one may come third for a step: two others
# are more probable so far, and it is lost. Later its words would have been more probable than theirs. In the first of the
# four tables this happens at step 5.

# %%
worse = [k for k, table in enumerate(tables) if search(table, 2, longest)[1] < search(table, 1, longest)[1] - 1e-12]
greedy, _ = search(tables[worse[0]], 1, longest)
print("tables", worse, " greedy sentence of the first", greedy)
beginnings = [((START,), 0.0)]
for t in range(longest):
    log_p = tables[worse[0]]
    grown = [(ids + (w,), total + log_p[ids[-1], w]) for ids, total in beginnings for w in (END, *range(4, V))]
    beginnings = [one for one in sorted(grown, key=lambda one: -one[1])[:2] if one[0][-1] != END]
    print(f"step {t + 1}, greedy {greedy[: t + 1]}; kept", *(list(map(int, ids[1:])) for ids, _ in beginnings))
assert len(worse) == 4
