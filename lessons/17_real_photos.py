# %% [markdown]
# # 17 Real photos: train, look where it looks, and where it fails
#
# - time: 60 minutes
# - cpu: 55 seconds
# - before: 00, 11, 14
# - equations: Xu et al. 2015, section 5
# - about: satnp.scores.evaluation.evaluate
#
# The one idea: three commands train, score and use a captioner on any photos, but none of them tells you whether it works.
# For that you have to look: at the curve, at the scores beside those of a captioner that does not see the photo, and at
# single photos.
#
# On Flickr8k (`python data_scripts/fetch.py flickr8k`, then `squeezenet`) run the lesson as
#
# ```text
# python lessons/17_real_photos.py --root data/Flickr8k --weights data/squeezenet1_1.pth
# ```
#
# It takes 70 minutes on two cores (`tests/benchmarks/results/flickr8k_soft.md`), nearly all of it for the training; Ctrl-C
# saves the training, and the same command continues it. Without `--weights` the encoder is EfficientNet-Lite0, whose weights
# are installed with satnp. Without `--root` the lesson writes 60 rendered scenes as JPEGs in the layout of Flickr8k and uses
# these; that takes less than a minute. The numbers in the text are those of the scenes.

# %%
import argparse
import json
import shlex
import sys
import tempfile
import textwrap
from pathlib import Path

import numpy as np
from kit import DATA, FIGURES, near, save, show
from matplotlib.figure import Figure
from PIL import Image
from threadpoolctl import threadpool_limits

from satnp import load
from satnp.cli import main
from satnp.data.datasets import load_split
from satnp.data.scenes import is_true, make_scenes, parse
from satnp.encoders.photos import read_photo
from satnp.figures import overlay, upsample
from satnp.scores.evaluation import evaluate
from satnp.scores.metrics import score

parser = argparse.ArgumentParser()
parser.add_argument("--root", type=Path, help="the folder of Flickr8k; default: 60 rendered scenes in its layout")
parser.add_argument("--weights", type=Path, help="SqueezeNet's weights; default: EfficientNet-Lite0")
is_script = Path(sys.argv[0]).name == "17_real_photos.py"  # a notebook has other things in argv
args = parser.parse_args(sys.argv[1:] if is_script else [])
if args.root and not (args.root / "Flickr8k_text").is_dir():
    parser.error(f"there is no Flickr8k_text in {args.root}; give the folder of Flickr8k as it is published")
print("real photos:", args.root or "none given, so rendered scenes in their place")

# %% [markdown]
# Flickr8k is two folders. One has the photos. The other has text files: one with five sentences for each photo, and three
# lists of the photos for training, for choosing between models (dev), and for the final scores (test). The next cell writes
# such a folder, unless you gave the real one.


# %%
def write_flickr8k(root, counts):
    """Rendered scenes as JPEGs in Flickr8k's layout -> {name: Scene}"""
    photos, text = root / "Flicker8k_Dataset", root / "Flickr8k_text"
    photos.mkdir(parents=True)
    text.mkdir()
    written, lines = {}, []
    for (split, official), count in zip({"train": "train", "val": "dev", "test": "test"}.items(), counts, strict=True):
        for scene in make_scenes(count, split, seed=0):
            written[f"{scene.name}.jpg"] = scene
            Image.fromarray(scene.image).save(photos / f"{scene.name}.jpg", quality=95)
            lines += [f"{scene.name}.jpg#{k}\t{caption} ." for k, caption in enumerate(scene.captions)]
        names = [name for name in written if name.startswith(split)]
        (text / f"Flickr_8k.{official}Images.txt").write_text("".join(f"{name}\n" for name in names))
    (text / "Flickr8k.token.txt").write_text("\n".join(lines) + "\n")
    return written


root, scenes = args.root, None
if root is None:
    threadpool_limits(1)  # batches of 16 small photos need no second core
    root = Path(tempfile.mkdtemp(prefix="satnp-17-"))
    scenes = write_flickr8k(root, (40, 8, 12))
print(root)
for path in sorted(root.rglob("*.txt")):
    print(f"{len(path.read_text().splitlines()):6} lines {path.relative_to(root)}")
print((root / "Flickr8k_text" / "Flickr8k.token.txt").read_text()[:180])

# %% [markdown]
# ## Predict
#
# There are 40 training photos with 200 sentences, and a network with about 330,000 parameters. What will happen to the loss
# of the training sentences, and to that of the 8 held-out photos? And what will the network say of a photo that it has not
# seen?

# %% [markdown]
# ## Run
#
# The command is the one of the README. For scenes there are no pretrained weights to start from, so the small encoder is
# trained, too. A TOML file asks for small sizes and a short training.


# %%
def satnp(*words):
    """Run one command of satnp, as in a terminal -> exit status"""
    print(textwrap.fill(f"$ satnp {shlex.join(map(str, words))}", 79, subsequent_indent="    ", break_on_hyphens=False))
    return main([str(word) for word in words])


out = FIGURES / "17_flickr8k" if args.root else root / "run"
data = "--data", "flickr8k", "--root", root
if args.root:
    weights = ("--weights", args.weights) if args.weights else ()
    status = satnp("train", *data, *weights, "--out", out, "--resume")
else:
    (root / "small.toml").write_text("""\
[config]
M = 64
H = 128
A = 64
penalty = 0.0
dropout = 0.0
[recipe]
epochs = 14
batch_size = 16
learning_rate = 4e-3
warmup = 50
averaging = 0.9
patience = 0
mirror = false
min_count = 1
""")
    status = satnp("train", *data, "--encoder", "small", "--config", root / "small.toml", "--out", out)
if status:  # interrupted, or refused
    sys.exit(status)

# %% [markdown]
# ## Look
#
# The trainer wrote a line of JSON every ten steps and at each validation. Of all figures of a training, look at this one
# first.

# %%
records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
figure = Figure((6.4, 3), layout="constrained")
ax = figure.subplots()
for kind, value, style in (("train", "loss", "-"), ("val", "nll", "o--")):
    chosen = [record for record in records if record["kind"] == kind]
    ax.plot([record["step"] for record in chosen], [record[value] for record in chosen], style, label=kind)
    print(kind, "at the end:", f"{chosen[-1][value]:.3f} nats a word, best {min(record[value] for record in chosen):.3f}")
ax.set_xlabel("minibatches")
ax.set_ylabel("-log p (nats a word)")
ax.set_ylim(bottom=0)
ax.legend()
save(figure, "17_curves", "the training loss still falls when that of the held-out photos no longer does")

# %% [markdown]
# From 40 photos the network can memorise their sentences; after step 80 or so, this no longer helps with other photos. The
# scores show the same in their way. For scenes we have a second network to compare with, the one of lesson 00. It has the
# same sizes and was trained by the same command, but on 5,500 scenes in place of 40. It accepts JPEGs as well as arrays.

# %%
ours, good = out / "best.npz", out / "best.npz" if args.root else DATA / "scenes.npz"
satnp("evaluate", ours, *data, "--split", "test", "--beam", 3, "--json", out / "test.json")
if good != ours:
    satnp("evaluate", good, *data, "--split", "test", "--beam", 3)

# %% [markdown]
# A BLEU-1 of about .68, for a network that has learned almost nothing about photos! Every sentence has "a", a colour and a
# shape, and lesson 14 showed how little a score says about the truth. So compare it with a captioner that does not see the
# photo: give each photo the sentence of the next photo. The score that is lost is what the network owes to the photo.

# %% [markdown]
# ## Predict
#
# By how much will CIDEr-D fall for the network of 40 photos, and by how much for the other?

# %% [markdown]
# ## Run

# %%
test = load_split("flickr8k", "test", root)
people = {name: [" ".join(words) for words in five] for name, five in zip(test.names, test.captions, strict=True)}
described, cider = {}, {}
for checkpoint in dict.fromkeys([ours, good]):
    _, captions = evaluate(load(checkpoint), test, beam=3)
    described[checkpoint] = dict(zip(test.names, captions, strict=True))
    said = [str(caption) for caption in captions]
    own = score(dict(zip(test.names, said, strict=True)), people)
    next_ones = score(dict(zip(test.names, said[1:] + said[:1], strict=True)), people)
    cider[checkpoint] = own.per_photo
    print(f"{checkpoint.name}: CIDEr-D {own.corpus['CIDEr']:.2f}, of the next photo's {next_ones.corpus['CIDEr']:.2f}")
    print(f"  {len(set(said))} different sentences, {len(set(' '.join(said).split()))} different words")

# %% [markdown]
# More than half of the first network's score is for language alone; of the second network's, less than a quarter. A score
# without a baseline beside it says nothing. Look for the baseline in papers, too.

# %% [markdown]
# ## Look
#
# The scores of single photos are useful for sorting: look at the worst first. (By CIDEr-D; lesson 14 showed why not by
# BLEU.)


# %%
def print_one(checkpoint, name):
    print(f"{name}  CIDEr-D {cider[checkpoint][name]['CIDEr']:.2f}\n  network: {described[checkpoint][name]}")
    print(f"  people:  {people[name][0]}")


for checkpoint in dict.fromkeys([ours, good]):
    order = sorted(test.names, key=lambda name: cider[checkpoint][name]["CIDEr"])
    print(f"--- {checkpoint.name}, the worst three and the best:")
    for name in [*order[:3], order[-1]]:
        print_one(checkpoint, name)

# %% [markdown]
# What kinds of mistakes are these? For photos a person has to decide. Sort twenty of them into "not there", "wrong colour or
# number", "wrong relation", and "true but poor": then you know something that no score tells you. For scenes we can count.


# %%
def kind_of(sentence, scene):
    said, there = parse(sentence), {thing.kind for thing in scene.objects}
    if said is None:
        return "no sentence of the language"
    if is_true(sentence, scene):
        return "true"
    return "wrong relation or size" if set(said.kinds) <= there else "names what is not there"


if scenes:
    for checkpoint, of in described.items():
        kinds = [kind_of(str(caption), scenes[name]) for name, caption in of.items()]
        print(checkpoint.name, {kind: kinds.count(kind) for kind in sorted(set(kinds))})

# %% [markdown]
# Where did it look? `satnp caption` draws this for any photo. Here are the worst and the best photo of the better network. A
# word can be wrong for two reasons: the network looked at the right place and named it wrongly, or it looked elsewhere.
# Which one is it here?

# %%
photos = root / "Flicker8k_Dataset"
satnp("caption", good, photos / order[0], photos / order[-1], "--beam", 3, "--figures", out / "attention")

# %%
figure = Figure((12, 2.2))
axes = figure.subplots(2, 14, gridspec_kw={"wspace": 0.05, "hspace": 0.3})
for row, name in zip(axes, (order[0], order[-1]), strict=True):
    photo, caption = read_photo(photos / name, 256), described[good][name]
    row[0].imshow(photo)
    row[0].set_ylabel(f"CIDEr-D {cider[good][name]['CIDEr']:.1f}", fontsize=7)
    for ax, word, alpha in zip(row[1:], caption.words, caption.alpha, strict=False):
        ax.imshow(overlay(photo, upsample(alpha, photo.shape[:2])))
        ax.set_title(word, fontsize=7)
    for ax in row:
        ax.set_xticks([])
        ax.set_yticks([])
    for ax in row[1 + len(caption.words) :]:
        ax.axis("off")
save(figure, "17_worst_and_best", "alpha at each word: black is 0, white is the largest weight of the panel")

# %% [markdown]
# At the words "cyan circle" it looked between the cyan square and the blue circle. Does it make the same mistake with the
# scene as an array, before it became a JPEG?

# %%
if scenes:
    network = load(good)
    (decoded,) = network.decode(network.annotate(scenes[order[0]].image[None]), 3)
    print(f"{order[0]} as an array: {network.describe(decoded)}")

# %% [markdown]
# It does not. These JPEGs keep colours at half the resolution, and the network was trained on arrays. Such a difference
# between training and use may lower the quality of any network; exercise 1 measures it.

# %% [markdown]
# ## Check by number
#
# What the command has written must equal what we compute, and the weights for each word must sum to 1. For scenes we also
# know what to expect: the sentences of the network that saw 5,500 scenes are true, those of the other are not.

# %%
show(evaluate)
written = json.loads((out / "test.json").read_text())
near("CIDEr-D of the command and ours", np.mean([mark["CIDEr"] for mark in cider[ours].values()]), written["CIDEr"], 1e-12)
sums = np.concatenate([caption.alpha.sum(axis=(1, 2)) for caption in described[good].values()])
near("each alpha sums to 1", sums, np.ones_like(sums), 1e-6)
if scenes:
    truths = [sum(is_true(str(caption), scenes[name]) for name, caption in of.items()) for of in described.values()]
    print("true of 12:", truths)
    assert truths[0] <= 3 and truths[1] >= 10

# %% [markdown]
# ## Break it
#
# Data has bugs that no gradient check can see. The first one here is harmless: a download that stopped in the middle of a
# photo. The second is worse: each training photo has the sentences of the photo before it. Will you see it in the training
# loss? (On Flickr8k this second training is left out.)

# %%
half = out / "half.jpg"
whole = (photos / order[0]).read_bytes()
half.write_bytes(whole[: len(whole) // 2])
status = satnp("caption", good, half, photos / order[-1])
print("exit status", status)
assert status == 2
assert satnp("caption", good, half, photos / order[-1], "--skip-bad") == 0

# %%
if scenes:
    lines = (root / "Flickr8k_text" / "Flickr8k.token.txt").read_text().splitlines()
    names, sentences = zip(*(line.split("\t") for line in lines), strict=True)
    sentences = sentences[195:200] + sentences[:195] + sentences[200:]  # five a photo, of the 40 for training
    moved = root / "moved.token.txt"
    moved.write_text("".join(f"{name}\t{sentence}\n" for name, sentence in zip(names, sentences, strict=True)))
    small = "--encoder", "small", "--config", root / "small.toml"
    satnp("train", *data, "--captions", moved, *small, "--out", root / "moved")

# %%
if scenes:
    for name, folder in (("right sentences", out), ("moved by a photo", root / "moved")):
        records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        train, val = ([r for r in records if r["kind"] == kind][-1] for kind in ("train", "val"))
        print(f"{name}: training {train['loss']:.3f}, held out {val['nll']:.3f} nats a word, CIDEr-D {val['CIDEr']:.2f}")

# %% [markdown]
# Hardly: the training loss is about .76 in place of .58, and without the right one beside it, nobody could tell that .76 is
# too much. The network memorises 40 wrong pairs nearly as well as 40 right ones. The held-out photos show the bug, and so do
# scores beside those of a captioner that does not see the photo. Nothing in satnp was wrong, so no test of its gradients
# could have found it. Look at your data first: twenty photos with their sentences.

# %% [markdown]
# ## Exercises
#
# 1. Take 200 test scenes and `scenes.npz`, beam 3. How many sentences are true for the arrays? How many after a JPEG of
#    quality 95, 75 and 50? And of quality 95 with `subsampling=0`, which keeps colours at full resolution? (197; 189, 159,
#    107; 197)
# 2. Caption an empty photo: `np.full((64, 64, 3), 128, np.uint8)`. The network has no words for an empty photo. Is its
#    $\log p$ unusual? (-4.42; the lowest of the 200 scenes is -3.25, and their mean is -2.75.)
# 3. Write 200 training photos in place of 40, and leave the rest as it is. How many of the 12 test scenes are described
#    truly? (none or one)
# 4. Run the lesson on Flickr8k, and sort the worst twenty photos by the kind of mistake. What do you know about the network
#    now that its scores did not tell you? (With SqueezeNet, beam 3 on `--split val`: CIDEr-D .456, BLEU-4 .194,
#    `tests/benchmarks/results/flickr8k_soft.md`.)

# %% [markdown]
# ## Next
#
# Your own photos with sentences can be used by `--data folder` (README). Six assignments in `lessons/assignments` ask you to
# write the parts of a captioner yourself. If you can derive, write and check them, you can do so for the next model. Lesson
# 18 looks back: how were photos described before attention, and what came beside it?
