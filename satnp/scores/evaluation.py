"""Evaluate a model on a split: free-running captions, their scores, and the likelihood of the reference captions."""

import numpy as np
from tqdm import tqdm

from satnp.arrays.backend import to_device, to_host, xp_of
from satnp.arrays.shares import in_shares, parameters_of_a_word, shares_of
from satnp.captioners import CAPTIONERS
from satnp.data import moving_scenes, scenes
from satnp.data.captions import UNK, pad
from satnp.data.features import annotate
from satnp.errors import InputError
from satnp.scores.metrics import matched, meteor, score

CHUNK = 50
MOSTLY_UNKNOWN = 0.5  # share of unknown words from which scores say more about the vocabulary than about the captioner
ONE_PHOTO = "CIDEr of a single photo is 0 by definition, because it weights an n-gram by how few of the photos have it"
ROUNDED = 1e-6  # a score that is not above it is 0 but for rounding
FEW_PHOTOS = 20  # with fewer, a score of captions says too little to choose between two models


def annotation_chunks(model, split, features=None):
    """Yield (slice of photos, annotations (n, L, D) on the model's device), from the features (photos, ...) if given."""
    if features is None and model.reads:
        raise InputError(f"{model.reads}; pass the annotations of data.by_name as features")
    xp, starts = xp_of(model.params.flat), range(0, len(split.names), CHUNK)
    shown = None if features is None else True  # reading photos takes long; None: on a terminal only
    for start in tqdm(starts, desc="photos", leave=False, disable=shown, ncols=79):
        rows = slice(start, min(start + CHUNK, len(split.names)))
        if features is None:
            yield rows, to_device(annotate(model, split.photos[rows]), xp)
        else:
            annotations, _ = model.encode(to_device(features[rows], xp))
            yield rows, annotations


def evaluate(model, split, beam, features=None, seed=0):
    """Caption the photos of a split, free-running, and score the captions -> ({score: value}, [model.Caption])

    The scores are coco-caption's and, for rendered scenes and clips, also those of data.scenes or data.moving_scenes. `seed`
    is the seed of the random choices in decoding.
    """
    captions, rng = [], np.random.default_rng(seed)
    for _, annotations in annotation_chunks(model, split, features):
        captions += [model.describe(decoded) for decoded in model.decode(annotations, beam, rng=rng)]
    candidates, references = (dict(zip(split.names, said, strict=True)) for said in _sentences(split, captions))
    scores = dict(score(candidates, references).corpus)
    if split.scenes is not None and isinstance(split.scenes[0], moving_scenes.Clip):
        scores |= moving_scenes.score(split.scenes, list(candidates.values()))
    elif split.scenes is not None:
        looks = model.encoder != "regions" and all(caption.alpha is not None for caption in captions)
        alphas = [caption.alpha.reshape(len(caption.alpha), -1) for caption in captions] if looks else None
        scores |= scenes.score(split.scenes, list(candidates.values()), alphas, model.grid)
    return scores, captions


def caveats(model, split):
    """Sentences about the scores of a model on a split, none where there is nothing to say: [str]"""
    share = unknown_share(model.vocabulary.encode(words) for captions in split.captions for words in captions)
    found = [ONE_PHOTO] if len(split.names) == 1 else []
    if share >= MOSTLY_UNKNOWN:
        found.append(
            f"{share:.0%} of the words of these captions are not in the vocabulary of the model, which cannot say them; "
            "use a model that was trained on such captions"
        )
    return found


def unknown_share(captions):
    """The share of the words of captions (lists of ids) that are unknown, 0 to 1; <start> and <end> are no words."""
    unknown = words = 0
    for ids in captions:
        unknown, words = unknown + ids.count(UNK), words + len(ids) - 2
    return unknown / max(1, words)


def cannot_tell(name, scores, split, captions):
    """Why the score `name` (Bleu_4 or CIDEr) of the [model.Caption] of a split cannot tell two models apart, or None."""
    if len(captions) < FEW_PHOTOS:
        return f"fewer than {FEW_PHOTOS} photos"
    if name == "Bleu_4" and not matched(*_sentences(split, captions))[3]:
        return "no 4-gram matched"
    return None if scores[name] > ROUNDED else f"{name} is 0"


def meteor_or_reason(split, captions):
    """Compute METEOR of the captions of a split -> (value, None), or (None, the reason why this is not possible)."""
    try:
        return meteor(*_sentences(split, captions))[0], None
    except InputError as error:
        return None, str(error)


def _sentences(split, captions):
    """[model.Caption] of a split -> candidates, references, as in metrics"""
    return [str(caption) for caption in captions], [[" ".join(words) for words in said] for said in split.captions]


def nats_per_word(model, split, features=None):
    """Mean -log p of the words of all reference captions, <end> included, under teacher forcing."""
    xp, nats, words = xp_of(model.params.flat), 0.0, 0.0
    no_noise = CAPTIONERS[model.captioner].Noise()
    for rows, annotations in annotation_chunks(model, split, features):
        for k in range(max(map(len, split.captions[rows]))):
            owners = [n for n, captions in enumerate(split.captions[rows]) if len(captions) > k]
            captions, mask = pad([model.vocabulary.encode(split.captions[rows][n][k]) for n in owners])
            batch = annotations[to_device(np.array(owners), xp)], to_device(captions, xp), to_device(mask, xp)

            def nats_of(rows, batch=batch):
                _, cache = model.loss(*(x[rows] for x in batch), no_noise)
                return float(to_host(cache.nll)) * (rows.stop - rows.start)

            nats += sum(in_shares(nats_of, shares_of(len(owners), xp, parameters_of_a_word(model.params.part("decoder")))))
            words += float(mask.sum())
    return nats / words
