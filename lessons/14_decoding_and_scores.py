# %% [markdown]
# # 14 Decoding and scores: greedy, beam, BLEU and CIDEr by hand
#
# - time: 60 minutes
# - cpu: 20 seconds
# - before: 00, 07
# - equations: Papineni et al. 2002; Vedantam et al. 2015
# - about: satnp.decoding.beam_search
#
# The network gives the probability of the next word. Two things are left: to find a sentence that is probable as a whole,
# and to give it a mark. Both are done by counting, there is no gradient in this lesson; and both have traps in which
# published numbers were caught.

# %%
import math
from collections import Counter
from inspect import getsource
from types import SimpleNamespace

import numpy as np
from kit import DATA, near, save, show
from matplotlib.figure import Figure

from satnp import load
from satnp.captioners import show_attend_tell
from satnp.captioners.contract import State
from satnp.data.scenes import is_true, make_scenes
from satnp.decoding import LengthScore, beam_search
from satnp.scores.metrics import bleu, cider_d, score

np.set_printoptions(precision=4, suppress=True, linewidth=78)
END, START = 2, 1  # ids; 0 is padding, 3 the unknown word, and neither is ever said
print("imported")

# %% [markdown]
# ## Predict
#
# A toy that knows two words, x and y, and says what may follow what:
#
#     after <start>   x .6   y .4
#     after x         x .3   y .3   <end> .4
#     after y         x .1   y 0    <end> .9
#
# Greedy decoding says the most probable word, again and again. Which sentence does it say, and what is its probability? Is
# there a more probable one?

# %% [markdown]
# ## Run
#
# The probability of a sentence is the product of the probabilities of its words, <end> included; its logarithm is their
# sum. Beam search keeps the `beam` best beginnings in place of one. A beginning that says <end> is finished: it leaves the
# beam and takes its place with it.

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
    print(f"beam {beam}: {' '.join('..$.xy'[i] for i in ids)}   p = {math.exp(total):.2f}")

# %% [markdown]
# ($ is <end>.) Greedy takes x, which is the better word, and ends at .6 * .4 = .24. "y" alone has .4 * .9 = .36. A word is
# chosen before it is known where it leads; a beam of two waits one word longer.
#
# satnp's beam search does the same for all photos and all beginnings at once, and asks a captioner only for two things:
# `start`, and `step`, the log-probabilities of the next word of each beginning. The toy fits in six lines: its table takes
# the place of the annotations. (With `min_length=0` a sentence may end before its first word, as in `search`; a captioner's
# sentences have a word.)

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
show(beam_search)
(found,) = beam_search(toy, None, None, log_table[None], beam=2, max_length=6, min_length=0)
print("satnp, beam 2:", found.ids, f"p = {math.exp(found.log_prob):.2f}")

# %% [markdown]
# ## Predict
#
# Now 300 random tables of nine words. A beam of 2,000 keeps all that could matter, so it finds the best sentence of all. How
# often does greedy find it? And a beam of three?

# %% [markdown]
# ## Run

# %%
rng = np.random.default_rng(0)
V, longest = 13, 6
tables = np.full((300, V, V), -np.inf)  # <pad>, <start> and <unk> are never said
tables[:, :, [END, *range(4, V)]] = np.log(rng.dirichlet(np.full(V - 3, 0.3), size=(300, V)))
best = np.array([found.log_prob for found in beam_search(toy, None, None, tables, 2000, longest, min_length=0)])
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
save(figure, "14_beams", "greedy finds the best of one table in four, a beam of 5 of four in five")

# %% [markdown]
# ## Predict
#
# Back to the network of lesson 00 and 200 scenes that it has not seen. Its probability of the sentence must rise with the
# beam. Does the share of true sentences rise with it? And are the sentences longer or shorter than the greedy ones?

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
# More probable by .11 nats, truer by one sentence of 200: nearly all of the doubt is about wording, and all wordings are
# right. Greedy begins with "a", the better first word; a beam sees that after "there is a" less is left open.
#
# A sum of logarithms falls with each word, so a beam favours short sentences. Captions may be ranked by log p / T^power
# instead, T words: with power 1 it is the mean of a word (`length_power` of a recipe; Flickr8k's is .7). Predict: what does
# the power do to the length, to log p, and to log p a word?

# %%
for power in (0.0, 0.7, 1.0):
    ranked = LengthScore(power=power)
    found = beam_search(show_attend_tell, model.params.part("decoder"), model.config, annotations, 10, length_score=ranked)
    words = np.mean([len(one.ids) for one in found])
    log_p = np.mean([one.log_prob for one in found])
    print(f"power {power}: {words:.2f} words, log p {log_p:.3f}, a word {log_p / words:.3f}")

# %% [markdown]
# One sentence longer by a word, a total that is worse, a mean that is better: each gets what it asks for. Here the length
# says nothing about the truth. On photos it matters, because the scores below punish short captions.

# %% [markdown]
# ## Predict
#
# Now the marks. People wrote one sentence a photo, and a captioner said:
#
#     photo 1   people: a red cross        captioner: a red circle
#     photo 2   people: a blue circle      captioner: a circle
#
# BLEU asks how many of the words, pairs, triples and fours of words (n-grams) that were said are in the references. It is a
# score of the corpus: the counts of all photos are added before anything is divided. With n up to 2:
#
#     said words  3 + 2 = 5, right 2 + 2 = 4        said pairs  2 + 1 = 3, right 1 + 0 = 1
#     too short:  5 words where people need 6, a factor exp(1 - 6/5) = .8187
#     BLEU-2 = sqrt(4/5 * 1/3) * .8187 = .4228
#
# Is the mean of the two photos' own BLEU-2 larger, equal or smaller? (Photo 2 has no right pair.)

# %% [markdown]
# ## Run
#
# In Python a bag of n-grams is a Counter, `&` takes the smaller count of each and `|` the larger. An n-gram counts as often
# as it is in one reference at most: that is the clip, without which "red red red" were perfect.

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
# Smaller: one n without a hit makes a photo's BLEU zero. So BLEU of single sentences is of little use, and a mean of them
# is not BLEU.
#
# CIDEr-D asks for what is worth saying. An n-gram weighs log(photos / photos whose people say it): "a" is in both, so it
# weighs log 1 = 0. A sentence is the vector of these weights times the counts, and two sentences are compared by the cosine
# of their vectors. For n = 1:
#
#     photo 1   people (red, cross) * log 2       said (red, circle) * log 2     cosine 1/2
#     photo 2   people (blue, circle) * log 2     said (circle) * log 2          cosine 1/sqrt(2)
#
# For n = 2 photo 1 has "a red" in common, one of two pairs on either side: 1/2; photo 2 has none. Nothing for n = 3 and 4.
# Each photo's mark is 10 times the mean over the four n, so photo 1 has 10 (1/2 + 1/2 + 0 + 0) / 4 = 2.5. Photo 2 is a word
# too short, a factor exp(-1/72) = .9862: 10 * .7071 * .9862 / 4 = 1.743. The "D" is in two more rules against cheats: that
# factor, and that the product takes the smaller of the two weights.

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
# What do the marks measure? Four captioners describe the 200 scenes: the network; the network with its relation made false
# ("above" for "below", and so on); a person, whose sentence is each scene's fifth; and one who says one sentence of all.
# They are marked against the other four sentences. Before you run it: rank them by BLEU-4 and by truth.

# %%
people = [list(scene.captions[:4]) for scene in scenes]
turned = {"above": "below", "over": "under", "below": "above", "under": "over"}


def lie(sentence):
    wrong = [turned.get(word, word) for word in sentence.split()]
    return " ".join(wrong).replace("to the left of", "above").replace("left of", "above")


captioners = {
    "network": said[1],
    "network, relation false": [lie(sentence) for sentence in said[1]],
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
ax.set_ylabel("mark (1 is the most)")
ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
save(figure, "14_marks", "the liar has two thirds of the marks and no truth")

# %% [markdown]
# Neither mark tells the network from a person: that much is right. But a captioner none of whose sentences is true keeps two
# thirds of BLEU-4 and three quarters of CIDEr-D: one word of ten is wrong, and the marks count words. A mark says that the
# sentences look like people's. Whether they are true we can ask the scene; of a photo one has to look (lesson 17).

# %% [markdown]
# ## Check by number
#
# Our search against satnp's on 300 tables, and our two marks against satnp's, on the two photos and on the 200 scenes. satnp
# adds 1e-9 below BLEU's fraction bars, as the common program does, so BLEU agrees to about 9 digits.

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
# Two bugs. The first is in many a first beam search: it starts with `beam` copies of <start> in place of one. What will a
# beam of three find then? The second is BLEU without the clip. What is the BLEU-1 of "a a a a" with it, and without?

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
# Three copies are greedy search three times over: the best word of each copy is the same. Nothing fails, and the caption is
# a good one, only never better than greedy. The test that catches it is the one above: a table where greedy is known to
# lose.

# %% [markdown]
# ## Exercises
#
# 1. On paper: BLEU-1 of "a a red cross" against "a red cross" and "a big red cross". Then ask `bleu`. (.75)
# 2. Add a third photo with "a green cross" from people and captioner alike. What becomes of CIDEr-D of photo 1, and why does
#    it rise? (2.908: "cross", which it missed, weighs less now that two photos have it.)
# 3. ROUGE-L takes the longest common subsequence of words; its formula is in the docstring of
#    `satnp.scores.metrics.rouge_l`. Write it for one reference and mark the two photos. (.6667 and .7722)
# 4. `satnp.decoding.sample` draws a sentence. Draw for the 200 scenes with default_rng(0) at temperatures .5, 1 and 2. How
#    many are true? (.985, .900, .210)
# 5. A wider beam can do worse. On how many of the 300 tables is the sentence of beam 2 less probable than the greedy one?
#    Find one and follow it by hand: when did the beam lose the greedy beginning? (4)

# %% [markdown]
# ## Next
#
# Lesson 15: where the time goes. A beam of ten makes ten beginnings of one photo look alike, and `step` computes what they
# share once; that, and four more such ideas, are most of satnp's speed.
