# %% [markdown]
# # 14 Decoding and scores: greedy, beam, BLEU and CIDEr by hand
#
# - time: 60 minutes
# - cpu: 20 seconds
# - before: 00, 07
# - equations: Papineni et al. 2002; Vedantam et al. 2015
# - about: satnp.decoding.beam_search
#
# The network gives the probability of the next word. Two tasks remain: to find a sentence that is probable as a whole, and
# to score it. Both are done by counting, so there is no gradient in this lesson. And both have traps.

# %%
import math
from collections import Counter
from inspect import getsource
from types import SimpleNamespace

import numpy as np
from kit import DATA, near, save
from matplotlib.figure import Figure

from satnp import load
from satnp.captioners import show_attend_tell
from satnp.captioners.contract import State
from satnp.data.scenes import is_true, make_scenes
from satnp.decoding import LengthScore, beam_search
from satnp.scores.metrics import bleu, cider_d, score

np.set_printoptions(precision=4, suppress=True, linewidth=78)
END, START = 2, 1  # ids; 0 is padding and 3 the unknown word: neither occurs in a sentence
print("imported")

# %% [markdown]
# ## Predict
#
# A toy language has two words, x and y. The table gives the probability of each word after the one before it:
#
# | after | x | y | `<end>` |
# |---|---|---|---|
# | `<start>` | .6 | .4 | 0 |
# | x | .3 | .3 | .4 |
# | y | .1 | 0 | .9 |
#
# Greedy decoding takes the most probable word at each step. Which sentence does it find, and what is its probability? Is
# there a more probable sentence?

# %% [markdown]
# ## Run
#
# The probability of a sentence is the product of the probabilities of its words, `<end>` included; its logarithm is a sum.
# Beam search keeps the `beam` most probable partial sentences, in place of one. A sentence that ends with `<end>` is
# finished: it leaves the beam, and its place stays empty. A sentence of `longest` words is finished, too.


# %%
def search(log_p, beam, longest):
    """The best sentence that a beam finds where log_p[a, b] is the log-probability of word b after word a -> ids, log p"""
    beginnings, finished = [((START,), 0.0)], []
    for t in range(1, longest + 1):
        grown = [(ids + (w,), total + log_p[ids[-1], w]) for ids, total in beginnings for w in (END, *range(4, len(log_p)))]
        grown = sorted(grown, key=lambda one: -one[1])[: beam - len(finished)]
        finished += [one for one in grown if one[0][-1] == END or t == longest]
        beginnings = [one for one in grown if one[0][-1] != END]
    ids, total = max(finished, key=lambda one: one[1])
    return list(ids[1:]), total


table = np.zeros((6, 6))
table[START, 4:] = 0.6, 0.4
table[4, [4, 5, END]] = 0.3, 0.3, 0.4
table[5, [4, 5, END]] = 0.1, 0.0, 0.9
with np.errstate(divide="ignore"):
    log_table = np.log(table)  # log 0 is -inf: never
for beam in (1, 2):
    ids, total = search(log_table, beam, longest=6)
    print(f"beam {beam}: {' '.join(('', '', '<end>', '', 'x', 'y')[i] for i in ids)}   p = {math.exp(total):.2f}")

# %% [markdown]
# Greedy decoding takes x, the more probable first word, and ends with probability $.6 \cdot .4 = .24$. The sentence "y" has
# $.4 \cdot .9 = .36$. A greedy choice does not consider which words can follow. A beam of two keeps both first words for one
# more step.
#
# satnp's `beam_search` does the same for all photos and all partial sentences at once. Of a captioner it calls only three
# functions: `decoding_noise`, for random numbers (none here); `start`; and `step`, which gives the log-probabilities of the
# next word of each partial sentence (`parents[k]` is the row of the partial sentence that row k continues). The toy can be
# written as a captioner in a few lines, with its table in place of the annotations. (With `min_length=0` a sentence may end
# before its first word, as in `search`; the default is one word or more.)

# %%
toy = SimpleNamespace(
    decoding_noise=lambda config, N, L, steps, rng: None,
    start=lambda params, config, tables, noise: State(tables, (), np.arange(len(tables))),
    step=lambda params, config, state, words, parents: (
        state.photo[state.photos[parents], words],
        State(state.photo, (), state.photos[parents]),
        np.zeros((len(words), 1)),
    ),
)
(found,) = beam_search(toy, None, None, log_table[None], beam=2, max_length=6, min_length=0)
print("satnp, beam 2:", found.ids, f"p = {math.exp(found.log_prob):.2f}")

# %% [markdown]
# ## Predict
#
# Now take 300 random tables of nine words, and sentences of at most six. The best sentence of a table can be computed
# without a search, because a word depends on the last word only: of all partial sentences of t words that end with the same
# word, only the best one matters. How often does greedy decoding find the best sentence? And a beam of three?

# %% [markdown]
# ## Run

# %%
rng = np.random.default_rng(0)
V, longest = 13, 6
tables = np.full((300, V, V), -np.inf)  # <pad>, <start> and <unk> do not occur
tables[:, :, [END, *range(4, V)]] = np.log(rng.dirichlet(np.full(V - 3, 0.3), size=(300, V)))
reach = tables[:, START].copy()  # log p of the best partial sentence that ends with each word
best = reach[:, END].copy()
for _ in range(longest - 1):
    reach[:, END] = -np.inf  # what has ended is not continued
    reach = (reach[:, :, None] + tables).max(axis=1)
    best = np.maximum(best, reach[:, END])
best = np.maximum(best, reach.max(axis=1))
beams, lost, share = (1, 2, 3, 5, 10, 20), [], []
for beam in beams:
    got = np.array([found.log_prob for found in beam_search(toy, None, None, tables, beam, longest, min_length=0)])
    lost.append((best - got).mean())
    share.append((best - got < 1e-9).mean())
    print(f"beam {beam:3}: the best sentence {share[-1]:4.0%}, log p lost on average {lost[-1]:.3f} nats")

# %% [markdown]
# ## Look

# %%
figure = Figure((6.4, 2.8), layout="constrained")
left, right = figure.subplots(1, 2)
left.semilogx(beams, share, "o-")
left.set_ylabel("best sentence found (share)")
right.semilogx(beams, lost, "o-")
right.set_ylabel("log p lost (nats)")
for ax in (left, right):
    ax.set_xticks(beams, beams)
    ax.set_xlabel("beam")
    ax.set_ylim(bottom=0)
save(figure, "14_beams", "greedy search finds the best sentence for a quarter of the tables, a beam of 5 for four fifths")

# %% [markdown]
# ## Predict
#
# We return to the network of lesson 00 and to 200 scenes that it has not seen. The probability of its sentences should rise
# with the beam. Does the share of true sentences rise, too? And are the sentences longer or shorter than the greedy ones?

# %% [markdown]
# ## Run

# %%
model = load(DATA / "scenes.npz")
scenes = make_scenes(200, "test", seed=0)
annotations = model.annotate(np.stack([scene.image for scene in scenes]))
said = {}
for beam in (1, 3, 10):
    found = model.decode(annotations, beam)
    said[beam] = [str(model.describe(one)) for one in found]
    log_p, words = np.mean([one.log_prob for one in found]), np.mean([len(one.ids) for one in found])
    true = np.mean([is_true(*pair) for pair in zip(said[beam], scenes, strict=True)])
    print(f"beam {beam:2}: log p {log_p:.3f}, {words:.2f} words, true {true:.3f}")
print("other words than greedy:", sum(a != b for a, b in zip(said[1], said[10], strict=True)), "of 200")

# %%
for k in [k for k in range(200) if said[1][k] != said[10][k]][:3]:
    print(f"greedy:  {said[1][k]}\nbeam 10: {said[10][k]}\n")

# %% [markdown]
# With a beam of 10 the sentences are more probable by .11 nats, and one more of 200 is true. More than half of the sentences
# changed, but mostly in their wording. In these three, greedy decoding begins with "a", the more probable first word. A beam
# finds that "there is a" is followed by more probable words.
#
# The sentences of the beam are a little longer here (11.08 words against 10.86). But each word adds a negative number to a
# sum of log-probabilities, so of two finished sentences the shorter one has an advantage. One may rank captions by
# $\log p / T^{\mathrm{power}}$ instead, for $T$ words (`<end>` is one); with power 1 it is the mean per word. (In a recipe
# it is `length_power`; the one for Flickr8k is .7, `tests/benchmarks/results/flickr8k_released.md`.) Predict: how does the
# power change the length, $\log p$, and $\log p$ per word?

# %%
for power in (0.0, 0.7, 1.0):
    ranked = LengthScore(power=power)
    found = beam_search(show_attend_tell, model.params.part("decoder"), model.config, annotations, 10, length_score=ranked)
    words = np.mean([len(one.ids) for one in found])
    log_p = np.mean([one.log_prob for one in found])
    print(f"power {power}: {words:.2f} words, log p {log_p:.3f}, a word {log_p / words:.3f}")

# %% [markdown]
# With power 1 the sentences are one word longer, their total is worse, and their mean per word is better. Each rule finds
# sentences that are good by this rule. The scores below depend on the length, too: both have a factor for it.

# %% [markdown]
# ## Predict
#
# Now the scores. Suppose people wrote one sentence for each photo, and a captioner produced another:
#
# | | people | captioner |
# |---|---|---|
# | photo 1 | a red cross | a red circle |
# | photo 2 | a blue circle | a circle |
#
# BLEU asks: of the captioner's words, pairs, triples and quadruples of words (n-grams), how many occur in the references? It
# is a score of the corpus: the counts of all photos are added before anything is divided. For words and pairs:
#
# | | photo 1 + photo 2 | in the references |
# |---|---|---|
# | words | $3 + 2 = 5$ | $2 + 2 = 4$ |
# | pairs | $2 + 1 = 3$ | $1 + 0 = 1$ |
#
# The captioner wrote 5 words where people wrote 6, and for this BLEU has a factor, the brevity penalty
# $\exp(1 - 6/5) = .8187$. So
#
# $$
# \mathrm{BLEU}_2 = \sqrt{\frac{4}{5} \cdot \frac{1}{3}} \cdot .8187 = .4228
# $$
#
# Is the mean of the BLEU-2 of the two single photos larger, equal, or smaller? (Photo 2 has no pair in the references.)

# %% [markdown]
# ## Run
#
# In Python, a Counter holds how often each n-gram occurs; `&` takes the smaller count of each n-gram, and `|` the larger. An
# n-gram counts at most as often as it occurs in one of the references. Without this clip, "red red red" would have a perfect
# BLEU-1. Of several references, the one closest in length counts for the brevity penalty.


# %%
def grams(sentence, n):
    words = sentence.split()
    return Counter(tuple(words[k : k + n]) for k in range(len(words) - n + 1))


def bleu_by_hand(candidates, references, up_to):
    right, made, length, wanted = np.zeros(up_to), np.zeros(up_to), 0, 0
    for candidate, sentences in zip(candidates, references, strict=True):
        for n in range(1, up_to + 1):
            allowed = Counter()
            for sentence in sentences:
                allowed |= grams(sentence, n)
            right[n - 1] += (grams(candidate, n) & allowed).total()
            made[n - 1] += grams(candidate, n).total()
        said = len(candidate.split())
        length += said
        wanted += min((len(sentence.split()) for sentence in sentences), key=lambda m: (abs(m - said), m))
    return np.prod(right / made) ** (1 / up_to) * math.exp(min(0, 1 - wanted / length))


candidates = ["a red circle", "a circle"]
references = [["a red cross"], ["a blue circle"]]
print(f"BLEU-2 of the corpus {bleu_by_hand(candidates, references, 2):.4f}")
alone = [bleu_by_hand([one], [others], 2) for one, others in zip(candidates, references, strict=True)]
print(f"of photo 1 {alone[0]:.4f}, of photo 2 {alone[1]:.4f}, their mean {np.mean(alone):.4f}")

# %% [markdown]
# It is smaller: if one n has no match, the BLEU of that photo is zero. So BLEU says little about single sentences, and the
# mean of single BLEUs is not the BLEU of the corpus.
#
# CIDEr-D gives more weight to rare n-grams. The weight of an n-gram is $\log(P / P_g)$, where $P$ is the number of photos
# and $P_g$ the number of those whose references contain it (at least 1). "a" is in both, so its weight is $\log 1 = 0$. A
# sentence becomes a vector of these weights times the counts, and two sentences are compared by the cosine of their vectors.
# For single words:
#
# | | people | captioner | cosine |
# |---|---|---|---|
# | photo 1 | (red, cross), each $\log 2$ | (red, circle), each $\log 2$ | $1/2$ |
# | photo 2 | (blue, circle), each $\log 2$ | (circle), $\log 2$ | $1/\sqrt{2}$ |
#
# For pairs, photo 1 has "a red" in common, one of two pairs on either side: 1/2. Photo 2 has none in common, and for three
# and four words there is nothing. The score of a photo is 10 times the mean of the four cosines, so photo 1 has
# $10 \cdot (1/2 + 1/2 + 0 + 0) / 4 = 2.5$. For a difference of $\delta$ words in length there is a factor
# $\exp(-\delta^2 / 72)$; the sentence of photo 2 is one word too short, $\exp(-1/72) = .9862$. So photo 2 has
# $10 \cdot .7071 \cdot .9862 / 4 = 1.743$. The "D" stands for two rules against captions that are written only to get a high
# score: this factor, and that in the product of two vectors the captioner's number for an n-gram is at most that of the
# reference.


# %%
def cider_by_hand(candidates, references):
    photos, marks = len(references), []
    spread = [Counter(g for s in references for g in set().union(*(grams(x, n) for x in s))) for n in range(1, 5)]

    def vector(sentence, n):
        weigh = {g: math.log(photos / max(1, spread[n - 1][g])) for g in grams(sentence, n)}
        return {g: count * weigh[g] for g, count in grams(sentence, n).items()}

    for candidate, sentences in zip(candidates, references, strict=True):
        cosines = []
        for sentence in sentences:
            delta = len(candidate.split()) - len(sentence.split())
            for n in range(1, 5):
                c, r = vector(candidate, n), vector(sentence, n)
                product = sum(min(c[g], r[g]) * r[g] for g in c.keys() & r.keys())
                norms = math.hypot(*c.values()) * math.hypot(*r.values())
                cosines.append(math.exp(-(delta**2) / 72) * product / norms if norms else 0.0)
        marks.append(10 * np.mean(cosines))
    return np.array(marks)


print("CIDEr-D of the photos", cider_by_hand(candidates, references))

# %% [markdown]
# ## Look
#
# What do the scores measure? Four captioners describe the 200 scenes: the network; the network, but with a false relation
# ("above" for "below", and so on); a "person", whose sentences are the fifth ones of the scenes (the program that draws a
# scene also writes its five true sentences); and a captioner that always gives the same sentence. The references are the
# four other sentences. Before you run the cell, rank the four captioners by BLEU-4 and by truth.

# %%
people = [list(scene.captions[:4]) for scene in scenes]
turned = {"above": "below", "over": "under", "below": "above", "under": "over"}


def with_false_relation(sentence):
    wrong = [turned.get(word, word) for word in sentence.split()]
    return " ".join(wrong).replace("to the left of", "above").replace("left of", "above")


captioners = {
    "network": said[1],
    "network, relation false": [with_false_relation(sentence) for sentence in said[1]],
    "person": [scene.captions[4] for scene in scenes],
    "always the same": ["a red cross is left of a green square"] * 200,
}
marks = {}
print("                         BLEU-1  BLEU-4  CIDEr-D   true")
for name, sentences in captioners.items():
    corpus = score(dict(enumerate(sentences)), dict(enumerate(people))).corpus
    true = np.mean([is_true(*pair) for pair in zip(sentences, scenes, strict=True)])
    marks[name] = corpus["Bleu_1"], corpus["Bleu_4"], corpus["CIDEr"], true
    print(f"{name:24} {corpus['Bleu_1']:6.3f}  {corpus['Bleu_4']:6.3f}  {corpus['CIDEr']:7.2f}  {true:5.3f}")

# %%
figure = Figure((6.4, 2.8), layout="constrained")
ax = figure.subplots()
for k, (name, (_, bleu_4, cider, true)) in enumerate(marks.items()):
    shift = 0.2 * k - 0.3
    ax.bar(np.arange(3) + shift, [bleu_4, cider / 10, true], 0.18, label=name)
ax.set_xticks(range(3), ["BLEU-4", "CIDEr-D / 10", "true"])
ax.set_ylabel("score")
ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
save(figure, "14_marks", "with false relations two thirds of BLEU-4 remain, and no sentence is true")

# %% [markdown]
# By both scores the network is about as good as the person, and its sentences are about as often true. But the captioner
# with false relations, whose sentences are all false, keeps two thirds of BLEU-4 and three quarters of CIDEr-D. BLEU-1 falls
# by only .12: few words are wrong, and the scores count words. A high score says that the sentences resemble those of
# people. Whether they are true we can compute for a scene; for a photo a person has to look (lesson 17).

# %% [markdown]
# ## Check by number
#
# We compare our search with satnp's on the 300 tables, and our two scores with satnp's, on the two photos and on the 200
# scenes. satnp adds 1e-9 to the denominators of BLEU, as coco-caption does, so BLEU agrees to about 9 digits.

# %%
for beam in (1, 3, 10):
    ours = [search(table, beam, longest) for table in tables]
    theirs = beam_search(toy, None, None, tables, beam, longest, min_length=0)
    assert [ids for ids, _ in ours] == [found.ids for found in theirs]
    near(f"beam {beam}, log p", [total for _, total in ours], [found.log_prob for found in theirs], 1e-12)

# %%
near("BLEU-2, two photos", bleu_by_hand(candidates, references, 2), bleu(candidates, references)[0][1], 1e-8)
near("CIDEr-D, two photos", cider_by_hand(candidates, references), cider_d(candidates, references)[1], 1e-12)
near("BLEU-4, 200 scenes", bleu_by_hand(said[1], people, 4), bleu(said[1], people)[0][3], 1e-8)
near("CIDEr-D, 200 scenes", cider_by_hand(said[1], people), cider_d(said[1], people)[1], 1e-12)

# %% [markdown]
# ## Break it
#
# Here are two bugs. The first is easy to make in a beam search: it starts with `beam` copies of `<start>` in place of one.
# What will a beam of three find then? The second is BLEU without the clip. What is the BLEU-1 of "a a a a" with it, and
# without?

# %%
broken = {}
exec(getsource(search).replace("[((START,), 0.0)], []", "[((START,), 0.0)] * beam, []"), globals(), broken)
copies = [broken["search"](table, 3, longest) for table in tables]
for beam in (1, 3):
    same = [a == b for a, b in zip(copies, (search(table, beam, longest) for table in tables), strict=True)]
    print(f"three copies find what a right beam of {beam} finds on {sum(same)} of 300 tables")

# %%
careless = getsource(bleu_by_hand).replace("allowed |= grams(sentence, n)", "allowed.update(99 * list(grams(sentence, n)))")
exec(careless, globals(), broken)
mumble, wanted = ["a a a a"], [["a red cross is left of a square"]]
clipped, unclipped = bleu_by_hand(mumble, wanted, 1), broken["bleu_by_hand"](mumble, wanted, 1)
print(f"BLEU-1 of 'a a a a': {clipped:.3f}, without the clip {unclipped:.3f}")
near("what satnp says", clipped, bleu(mumble, wanted)[0][0], 1e-8)
assert unclipped > 1.9 * clipped

# %% [markdown]
# Three copies are greedy search done three times, because the best word of each copy is the same. There is no error message,
# and the captions are good ones, but never better than greedy ones. A test finds this bug if it uses a table on which greedy
# search is known to fail, such as the one of x and y.

# %% [markdown]
# ## Exercises
#
# 1. On paper: the BLEU-1 of "a a red cross" with the references "a red cross" and "a big red cross". Then call `bleu`. (.75)
# 2. Add a third photo for which people and captioner both wrote "a green cross". What is now the CIDEr-D of photo 1, and why
#    has it risen? (2.908)
# 3. ROUGE-L is based on the longest common subsequence of words; its formula is in the docstring of
#    `satnp.scores.metrics.rouge_l`. Write it for one reference, and score the two photos. (.6667 and .7722)
# 4. `satnp.decoding.sample` draws a sentence at random. Draw one for each of the 200 scenes with `default_rng(0)`, at
#    temperatures .5, 1 and 2. What share is true? (.985, .900, .210)
# 5. A wider beam can find less. On how many of the 300 tables is the sentence of beam 2 less probable than the greedy one?
#    Take one of them and follow the search by hand: at which step does the beam lose the partial sentence that greedy search
#    keeps? (4 tables)

# %% [markdown]
# ## Next
#
# Lesson 15 measures where the time goes, and shows what saves it. For example, `step` computes only once what the ten
# partial captions of a beam have in common.
