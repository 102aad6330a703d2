"""Early systems learn from stored features, in one call."""

from dataclasses import asdict, replace

from satnp.arrays.backend import to_device, to_host, xp_of
from satnp.arrays.parameters import Parameters
from satnp.checkpoint import save
from satnp.early import EARLY
from satnp.early.photos import Photos
from satnp.scores.evaluation import evaluate


def mirrors(model, recipe):
    """Return whether the early system of a Model learns from mirrored photos, too."""
    return recipe.mirror and hasattr(EARLY[model.captioner], "MIRRORS")


def learn(model, splits, stores, path, recipe):
    """Let the early system of an untrained Model learn, and write the checkpoint `path` -> Model, scores on validation

    splits and stores {"train": ..., "val": ...}: the Splits, and the annotations of their photos. stores["mirrored"]: those
    of the mirrored training photos, if `mirrors` says that they are used.
    """
    train, val = (
        (stores[which], [[model.vocabulary.encode(words) for words in said] for said in splits[which].captions])
        for which in ("train", "val")
    )
    photos = Photos(*train, *val, model.vocabulary.words, recipe.seed, splits["train"].scenes, stores.get("mirrored"))
    config, decoder = EARLY[model.captioner].fit(model.config, photos)
    xp, encoder = xp_of(model.params.flat), model.params.part("encoder")
    params = Parameters.join(encoder=encoder.on(to_host(encoder.flat)), decoder=decoder)
    model = replace(model, config=config, params=params.on(to_device(params.flat, xp)))
    scores, _ = evaluate(model, splits["val"], 1, stores["val"])
    save(path, model, val=scores, recipe=asdict(recipe))
    return model, scores
