"""The command line: satnp demo | gradcheck | estimators | features | regions | train | compare | caption | evaluate | rank |
release."""

import argparse
import os
import sys
from contextlib import nullcontext
from dataclasses import asdict, replace
from glob import glob
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

import numpy as np

from satnp import __version__
from satnp.arrays import ranks
from satnp.captioners import CAPTIONERS
from satnp.captioners.show_attend_tell import CHOICES
from satnp.data.datasets import KINDS
from satnp.decoding import LENGTH_SCORES
from satnp.early import EARLY
from satnp.encoders import ENCODERS, reads_clips
from satnp.errors import InputError
from satnp.terminal import LONGEST, any_text, complain, printable, sentence


@any_text()
def main(arguments=None):
    """Run one command -> exit status: 0 done, 1 a check failed, 2 bad input, 130 interrupted, 141 output pipe closed."""
    args = _parser().parse_args(arguments)
    try:
        count = vars(args).get("ranks")
        if count and count > 1 and not ranks.inside():
            return ranks.start(count, sys.argv[1:] if arguments is None else arguments)
        args.world = ranks.world() if "ranks" in args else ranks.ALONE
        # a command that writes into a folder locks it
        with args.world.ending(), (args.world.lock(args.out / ".lock") if "out" in args else nullcontext()):
            args.world.expect(count or args.world.size)
            status = args.run(args) or 0
        sys.stdout.flush()
        return status
    except InputError as error:
        complain(str(error))
        return 2
    except BrokenPipeError:  # the process that reads the output has ended, as in `| head`
        return 141
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        complain(f"{error.strerror or error}{where}; fix that and run again")
        return 2
    except MemoryError as error:
        complain(f"not enough memory ({error}); choose smaller sizes, batches or samples")
        return 2
    except KeyboardInterrupt:
        complain("interrupted")
        return 130


class _Parser(argparse.ArgumentParser):
    def parse_known_args(self, args=None, namespace=None):
        """Photos may also follow an option: argparse takes only those before it."""
        found, rest = super().parse_known_args(args, namespace)
        if "photos" in found and not any(x.startswith("-") for x in rest):
            found.photos += rest
            rest = []
        return found, rest

    def error(self, message):
        super().error(sentence(message, LONGEST - len(f"{self.prog}: error: ")))


def _parser():
    parser = _Parser(
        prog="satnp", description="Show, Attend and Tell from scratch in NumPy.",
        epilog="Start with: satnp demo", formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"satnp {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name, run, summary, example):
        sub = commands.add_parser(
            name, help=summary, description=summary, epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        sub.set_defaults(run=run)
        return sub

    _proofs(command)
    _trainings(command)
    _uses(command)
    return parser


def _proofs(command):
    """The options of demo, gradcheck and estimators."""
    sub = command("demo", demo, "train on rendered scenes from scratch, then caption unseen ones", "satnp demo")
    sub.add_argument("--out", type=Path, default=Path("satnp-demo"), metavar="DIR", help="default: satnp-demo")
    sub.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="default: 0")
    _device_options(sub)

    sub = command("gradcheck", gradcheck, "check every hand-written gradient", "satnp gradcheck lstm scores")
    sub.add_argument("names", nargs="*", metavar="NAME", help="run only the checks whose names contain one of these")
    sub.add_argument("--json", type=Path, metavar="FILE", help="also write the rows as JSON")

    sub = command("estimators", estimators, "exact bias and variance of hard attention's gradients; learning curves",
                  "satnp estimators --out satnp-estimators")  # fmt: skip
    sub.add_argument("--out", type=Path, default=Path("satnp-estimators"), metavar="DIR", help="default: satnp-estimators")
    sub.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="default: 0")
    _device_options(sub)


def _trainings(command):
    """The options of features, regions, train and compare."""
    sub = command(
        "features", features, "compute the features of frozen layers, for a later training with the same options",
        "satnp features --data flickr8k --root Flickr8k --features features --ranks 4",
    )  # fmt: skip
    _data_options(sub)
    _skipping_options(sub)
    _network_options(sub)
    sub.add_argument("--features", type=Path, required=True, metavar="DIR", help="folder of the features")
    _device_options(sub)
    _several_options(sub)

    sub = command(
        "regions", regions, "write the regions of rendered scenes, for captioners that read regions from a file",
        "satnp regions --data scenes --init satnp-demo/best.npz --out scenes.npz",
    )  # fmt: skip
    sub.add_argument("--data", required=True, choices=("scenes",))
    sub.add_argument("--init", type=Path, required=True, metavar="CHECKPOINT", help="take the encoder of this training")
    sub.add_argument("--truth", action="store_true",
                     help="write the true objects; default: those that a detector finds, which is trained first")
    sub.add_argument("--out", type=Path, required=True, dest="file", metavar="FILE.npz")
    sub.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="of the scenes and the detector; default: 0")

    sub = command(
        "train", train, "train a captioner",
        "satnp train --data flickr8k --root Flickr8k --out runs/soft",
    )  # fmt: skip
    _data_options(sub)
    _skipping_options(sub)
    _network_options(sub)
    _by_name_options(sub)
    sub.add_argument("--captioner", choices=(*CAPTIONERS, *EARLY), help="default: show_attend_tell")
    sub.add_argument("--attention", choices=("soft", "hard"), help="for show_attend_tell; default: soft")
    sub.add_argument("--out", type=Path, required=True, metavar="DIR",
                     help="for last.npz, best.npz, metrics.jsonl, figures, and progress.html, a page to watch the training")
    sub.add_argument("--features", type=Path, metavar="DIR", help="folder of the frozen features; default: OUT/features")
    sub.add_argument("--init", type=Path, metavar="CHECKPOINT",
                     help="start from the parameters of another training; from another captioner, take the encoder; for "
                          "moving_scenes, the encoder of photos in it reads the frames, and is not trained")
    sub.add_argument("--resume", action="store_true", help="continue from OUT/last.npz")
    sub.add_argument("--epochs", type=int, metavar="N")
    sub.add_argument("--batch-size", type=int, metavar="N")
    sub.add_argument("--learning-rate", type=float, metavar="X")
    sub.add_argument("--encoder-learning-rate", type=float, metavar="X", help="for the fine-tuned layers; default: 1e-4")
    _device_options(sub)
    _several_options(sub)

    sub = command(
        "compare", compare, "train captioners on the same features, and compare them",
        "satnp compare --data scenes --init satnp-demo/best.npz --out runs/compare",
    )  # fmt: skip
    _data_options(sub)
    _skipping_options(sub)
    _network_options(sub, finetune=False)
    sub.add_argument("--init", type=Path, metavar="CHECKPOINT", help="take the encoder of this training, with its weights")
    sub.add_argument("--captioners", nargs="+", metavar="NAME",
                     help="default: all that read no regions; show_attend_tell:hard has hard attention")
    sub.add_argument("--budget", type=_minutes, metavar="MINUTES",
                     help="minutes of training for each captioner, without validation; default: the recipe's epochs")
    sub.add_argument("--epochs", type=int, metavar="N")
    sub.add_argument("--features", type=Path, metavar="DIR", help="folder of the frozen features; default: OUT/features")
    sub.add_argument("--split", default="val", choices=("val", "test"),
                     help="the photos on which they are scored; default: val")
    sub.add_argument("--beam", type=at_least(1), default=3, metavar="N", help="default: 3")
    sub.add_argument("--out", type=Path, required=True, metavar="DIR",
                     help="for compare.json, compare.png, and a folder for each captioner")
    _device_options(sub)


def _uses(command):
    """The options of caption, evaluate and release."""
    sub = command("caption", caption, "caption photos", "satnp caption photo.jpg --page page.html")
    _checkpoint_option(sub)
    sub.add_argument("photos", nargs="+", metavar="PHOTO", help="or one of COCO's image_info_*.json, with --root")
    sub.add_argument("--root", type=Path, metavar="DIR", help="folder of the photos that the image_info_*.json lists")
    _skipping_options(sub)
    _by_name_options(sub)
    sub.add_argument("--weights", type=Path, metavar="FILE", help="encoder weights that replace those in the checkpoint")
    sub.add_argument("--beam", type=at_least(1), default=3, metavar="N", help="default: 3")
    _looking_options(sub)
    sub.add_argument("--figures", type=Path, metavar="DIR",
                     help="write PNGs per photo: where it looked for each word, and for some captioners more")
    sub.add_argument("--page", type=Path, metavar="FILE.html",
                     help="write a page for a browser: point at a word, and each photo shows where it looked")
    sub.add_argument("--with", type=Path, action="append", default=[], dest="others", metavar="CHECKPOINT",
                     help="the page also shows what this checkpoint says, with its own settings; may be given several times")
    sub.add_argument("--json", type=Path, metavar="FILE", help="write captions, log-probabilities and weights")
    sub.add_argument("--results", type=Path, metavar="FILE", help="write the captions as COCO's server takes them")
    _device_options(sub)

    sub = command(
        "evaluate", evaluate, "score a checkpoint on a split",
        "satnp evaluate best.npz --data flickr8k --root Flickr8k --split val",
    )  # fmt: skip
    _checkpoint_option(sub)
    _data_options(sub)
    _skipping_options(sub)
    _by_name_options(sub)
    sub.add_argument("--split", required=True, choices=("val", "test"))
    sub.add_argument("--weights", type=Path, metavar="FILE", help="encoder weights that replace those in the checkpoint")
    sub.add_argument("--beam", type=at_least(1), default=3, metavar="N", help="default: 3")
    _looking_options(sub)
    sub.add_argument("--json", type=Path, metavar="FILE", help="write the scores")
    sub.add_argument("--results", type=Path, metavar="FILE", help="write the captions in coco-caption's format")
    _device_options(sub)

    sub = command(
        "rank", rank, "how well photos and sentences find each other, by a checkpoint of the captioner ranking",
        "satnp rank runs/ranking/best.npz --data flickr8k --root Flickr8k --split val",
    )  # fmt: skip
    sub.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    _data_options(sub)
    _skipping_options(sub)
    sub.add_argument("--split", required=True, choices=("val", "test"))
    sub.add_argument("--json", type=Path, metavar="FILE", help="write recalls and median ranks")
    sub.add_argument("--figures", type=Path, metavar="DIR",
                     help='for sentences = "words": where each word of the best sentence is, in the first photos')

    sub = command(
        "release", release, "write the captioner of a checkpoint as a small file, for use but not for more training",
        "satnp release runs/soft/best.npz --out captioner.npz",
    )  # fmt: skip
    sub.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    sub.add_argument("--out", type=Path, required=True, dest="file", metavar="FILE", help="such as captioner.npz")


def _checkpoint_option(sub):
    sub.add_argument("checkpoint", nargs="?", metavar="CHECKPOINT",
                     help="of a training; default: the captioner that comes with satnp")


def _device_options(sub):
    sub.add_argument("--device", choices=("numpy", "cuda", "auto"), default="numpy", help="default: numpy")


def _data_options(sub):
    sub.add_argument("--data", required=True, choices=KINDS)
    sub.add_argument("--root", type=Path, metavar="DIR", help="folder of a published data set, or of your photos")
    sub.add_argument("--captions", type=Path, metavar="FILE", help="captions of the photos; default: the official file")


def _network_options(sub, finetune=True):
    sub.add_argument("--encoder", choices=[name for name in ENCODERS if name != "regions"],
                     help="default: small for scenes, small_frames for moving_scenes, else efficientnet_lite0, or "
                          "squeezenet1_1 with --weights")
    sub.add_argument("--weights", type=Path, metavar="FILE",
                     help="pretrained encoder: .pth, .safetensors or .npz file; efficientnet_lite0 needs none")
    sub.add_argument("--preprocessing", choices=("caffe", "torchvision", "tensorflow"),
                     help="preprocessing of the weights; default: caffe for squeezenet1_1, torchvision for vgg19, and "
                          "tensorflow, the only one, for efficientnet_lite0")
    if finetune:
        sub.add_argument("--finetune-from", metavar="LAYER",
                         help="also train the pretrained encoder, from this layer on; default: cbam, where it exists")
    sub.add_argument("--config", type=Path, metavar="FILE.toml",
                     help="tables [config], [recipe] and [encoder_config] that replace values of the preset")
    sub.add_argument("--seed", type=at_least(0), metavar="N", help="default: 0")


def _several_options(sub):
    sub.add_argument("--ranks", type=at_least(1), metavar="N",
                     help="number of MPI processes, which share the work and the cores; default: 1")


def _skipping_options(sub):
    sub.add_argument("--skip-bad", action="store_true",
                     help="leave out photos that are missing, cannot be read or have no captions; default: stop")


def _by_name_options(sub):
    sub.add_argument("--regions", type=Path, metavar="FILE.npz",
                     help="regions of the photos, for top_down and neural_baby_talk")
    sub.add_argument("--guidance", type=Path, metavar="FILE.npz", help="guidance vectors of the photos, for glstm")


def _looking_options(sub):
    sub.add_argument("--length-score", choices=LENGTH_SCORES,
                     help="how captions of different lengths are compared; default: as trained")
    sub.add_argument("--decoding", choices=CHOICES["decoding"],
                     help="how hard attention chooses where to look; default: as trained")
    sub.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="for --decoding sampling; default: 0")


def at_least(least):
    """The type of an option that is a whole number, `least` or larger."""

    def whole_number(text):
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {least} or more")
        return int(text)

    return whole_number


def _minutes(text):
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of minutes above 0")
    return minutes


def demo(args):
    """Train on scenes, then score and caption unseen ones."""
    from satnp.demo import run

    return run(args.out, args.seed, _device(args))


def gradcheck(args):
    """Print one row per check."""
    from satnp.files import write_json
    from satnp.proof import checks

    results = checks.run(args.names)
    if args.json:
        rows = [{"name": r.name, "method": r.method, "error": r.error, "passed": r.passed} for r in results]
        write_json(args.json, rows)
    failed = [r for r in results if not r.passed]
    print(f"{len(results) - len(failed)} of {len(results)} checks passed")
    return 1 if failed else 0


def estimators(args):
    """Measure each estimator of hard attention's gradient, then train with each."""
    from satnp.proof.laboratory import run

    return run(args.out, args.seed, _device(args))


def features(args):
    """Compute the features that a training would compute first."""
    preset, xp = _preset(args), _device(args)
    model, splits, skipped = _untrained(args, preset, args.features, {})
    if not model.keeps_features:
        raise InputError("no layer of this encoder is frozen, so there are no features to keep; run satnp train instead")
    stores = _features(args, model.on(xp), splits, preset.recipe, args.features)
    if args.world.rank == 0:
        for store in stores:
            if store is not None:
                print(printable(f"{len(store)} photos: {store.filename}"))
        _say_skipped(*skipped)


def regions(args):
    """Write a file of regions for all scenes."""
    from satnp import load
    from satnp.data.datasets import load_splits
    from satnp.data.scenes import SPLITS
    from satnp.early.regions import found_regions, true_regions, write_regions
    from satnp.scores.evaluation import annotation_chunks

    model = load(args.init)
    if model.encoder == "regions" or reads_clips(model.encoder):
        raise InputError(f"{args.init} has no encoder of photos; give a checkpoint that has one")
    splits = load_splits(args.data, SPLITS, seed=args.seed).values()
    names, scenes = ([x for split in splits for x in getattr(split, part)] for part in ("names", "scenes"))
    annotations = np.concatenate([seen for split in splits for _, seen in annotation_chunks(model, split)])
    learnt_on = len(next(iter(splits)).names)
    found = true_regions(scenes) if args.truth else found_regions(learnt_on, annotations, scenes, args.seed)
    count = write_regions(args.file, names, annotations, model.grid, found)
    print(printable(f"{args.file}: {count} regions of {len(names)} scenes"))


def train(args):
    """Train, or resume a training."""
    from satnp import load
    from satnp.figures import curves_figure, diagnostics_figure
    from satnp.training.trainer import Photos, Trainer, read_log

    preset, last, folder = _preset(args), args.out / "last.npz", args.features or args.out / "features"
    if preset.captioner in EARLY:
        return _fit(args, preset, folder)
    recipe = preset.recipe
    if last.exists() and not args.resume:
        raise InputError(f"{args.out} holds a training already; add --resume to continue it, or give another --out")
    xp, files = _device(args), _files(args)
    encoder = load(args.init) if args.init and reads_clips(preset.encoder) else None
    model, splits, skipped = _untrained(args, preset, folder, files, encoder)
    trained, init = False, None
    if encoder and model.encoder != encoder.encoder:  # an encoder of photos reads the frames of clips, and is not trained
        init = _hash(encoder)
    elif args.init:
        trained, init = _start_from(model, args.init, recipe.objective == "scst", splits["train"].captions)
    model = model.on(xp)
    trainer = Trainer(
        model, recipe, splits["train"], splits["val"], args.out, ranks=args.world, trained=trained, init=init
    )  # fmt: skip
    if args.resume and last.exists():
        trainer.resume()
        print(f"resumed at step {trainer.step} of {trainer.steps}")
    elif args.resume:
        print(printable(f"there is no {last} yet: starting from the beginning"))
    if model.keeps_features:  # after resume(), which may refuse to continue
        stores = (None, None, None) if "regions" in files else _features(args, model, splits, recipe, folder)
        of_splits = splits["train"], splits["train"] if recipe.mirror else None, splits["val"]
        plain, mirrored, trainer.val_features = (
            split and _from_files(model, files, split, store) for split, store in zip(of_splits, stores, strict=True)
        )
        trainer.photos = Photos(model, splits["train"], recipe, plain, mirrored)
    if not trainer.run():
        if args.world.rank == 0:
            print("continue with --resume")
        return 130
    if args.world.rank == 0:
        records = read_log(args.out / "metrics.jsonl")
        curves_figure(records, args.out / "curves.png")
        if any("alpha_entropy" in record for record in records):
            diagnostics_figure(records, args.out / "diagnostics.png")
        name, value = trainer.chosen_by
        why = "" if name == recipe.select else f"; {recipe.select} could not tell the epochs apart"
        print(printable(f"best: {args.out / 'best.npz'}, validation {name} {value:.4f} with beam {recipe.beam}{why}"))
        _say_skipped(*skipped)
    return 0


def _fit(args, preset, folder):
    """Let an early system learn from the features of a frozen encoder, and write it to OUT/best.npz."""
    from satnp import load
    from satnp.data.features import feature_store
    from satnp.training.early import learn, mirrors
    from satnp.training.presets import new_model

    best = args.out / "best.npz"
    for name in ("epochs", "batch_size", "learning_rate", "encoder_learning_rate"):
        if vars(args).get(name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{preset.captioner} takes no {option}; leave it out, or set its own values under [config]")
    if best.exists():
        raise InputError(f"{args.out} holds a training already, and {preset.captioner} does not resume; give another --out")
    splits, skipped = _splits(args, ("train", "val"), preset.recipe.seed, folder)
    encoder = load(args.init) if args.init else None
    model = new_model(
        preset, splits["train"], args.weights, args.preprocessing, args.finetune_from, encoder=encoder
    )  # fmt: skip
    stores = {which: feature_store(folder, model, splits[which]) for which in ("train", "val")}
    if mirrors(model, preset.recipe):
        stores["mirrored"] = feature_store(folder, model, splits["train"], mirrored=True)
    model, scores = learn(model, splits, stores, best, preset.recipe)
    print(printable(f"{best}: validation BLEU-4 {scores['Bleu_4']:.4f}, CIDEr {scores['CIDEr']:.4f}"))
    _say_skipped(*skipped)
    return 0


def compare(args):
    """Train captioners on the features of one frozen encoder, and compare them."""
    from satnp import load
    from satnp.compare import run
    from satnp.training.presets import describes_clips, new_model

    if args.init and (args.encoder or args.weights or args.preprocessing):
        raise InputError("--init gives the encoder and its weights; leave out --encoder, --weights and --preprocessing")
    reading = [name for name, captioner in CAPTIONERS.items() if getattr(captioner.Config, "regions", False)]
    fit = [name for name in (*EARLY, *CAPTIONERS) if args.data != "moving_scenes" or describes_clips(name)]
    labels = args.captioners or [*(name for name in fit if name not in reading), "show_attend_tell:hard"]
    if named := [label for label in labels if label in reading]:
        raise InputError(f"{named[0]} reads regions from a file, which compare does not; leave it out")
    if not args.captioners:
        print(f"without {', '.join(reading)}: compare reads no regions from a file")
    if len(set(labels)) < len(labels):
        raise InputError(f"{max(labels, key=labels.count)} is named twice after --captioners; name each once")
    xp, presets = _device(args), {}
    for label in labels:
        name, colon, attention = label.partition(":")
        presets[label] = _preset(args, name, attention if colon else None, own_recipe=False)
    preset = presets[next((label for label in labels if label not in EARLY), labels[0])]  # early systems use no recipe
    if preset.recipe.objective != "cross_entropy":
        raise InputError("compare trains each captioner from the beginning; leave out objective = \"scst\"")
    encoder = load(args.init) if args.init else None
    of = preset.encoder if encoder is None else encoder.encoder
    if of == "regions":
        raise InputError(f"{args.init} reads regions from a file, which compare does not; give an encoder of photos")
    if encoder is None and (not hasattr(ENCODERS[of], "load") or hasattr(ENCODERS[of], "NEW_LAYER")):
        raise InputError(f"compare does not train the encoder {of}; give a checkpoint that has it with --init")
    folder = args.features or args.out / "features"
    splits, skipped = _splits(args, dict.fromkeys(("train", "val", args.split)), preset.recipe.seed, folder)
    models = {label: new_model(preset, splits["train"], args.weights, args.preprocessing, encoder=encoder).on(xp)
              for label, preset in presets.items()}  # fmt: skip
    status = run(args.out, models, preset.recipe, splits, folder, args.split, args.beam, args.budget)
    _say_skipped(*skipped)
    return status


def _preset(args, captioner=None, attention=None, own_recipe=True):
    """The Preset, with the values that the command line gives."""
    from satnp.training.presets import find_preset, with_files

    said = vars(args)
    captioner = said.get("captioner") if captioner is None else captioner
    attention = said.get("attention") if attention is None else attention
    if args.encoder and said.get("regions"):
        raise InputError("--regions takes the place of an encoder; leave out --encoder")
    if args.data == "moving_scenes" and said.get("regions"):
        raise InputError("--regions is for photos, and moving_scenes are clips; leave it out")
    preset = find_preset(args.data, captioner, attention, args.config, own_recipe, args.encoder, args.weights)
    preset = with_files(preset, said.get("regions"), said.get("guidance"))
    names = ("epochs", "batch_size", "learning_rate", "encoder_learning_rate", "seed")
    changes = {name: said[name] for name in names if said.get(name) is not None}
    return replace(preset, recipe=replace(preset.recipe, **changes))


def _files(args):
    """{"regions": Regions, "guidance": Guidance}: the files that the command line names."""
    from satnp.data.by_name import read_guidance, read_regions

    readers = {"regions": read_regions, "guidance": read_guidance}
    return {name: read(path) for name, read in readers.items() if (path := getattr(args, name)) is not None}


READERS = {"regions": lambda model: model.encoder == "regions", "guidance": lambda model: model.guidance is not None}


def _from_files(model, files, split, features=None):
    """What the model reads of the photos of a split: their regions or guidance from `files`, or else the `features`.

    Raises InputError for a file that the model does not read or that is not given, and for one of other sizes.
    """
    from satnp.data.by_name import Guided

    reads = {name: reads(model) for name, reads in READERS.items()}
    for name, needed in reads.items():
        if needed and name not in files:
            raise InputError(f"{model.reads}; give it with --{name} FILE.npz")
        if not needed and name in files:
            raise InputError(f"the model reads no {name} from a file; leave out --{name}")
    if reads["regions"]:
        regions, (k, D), config = files["regions"], files["regions"].sizes, model.encoder_config
        if (k, D) != (config.k, config.D):
            raise InputError(f"{regions.table.path} has {k} regions of each photo with {D} features, but {model.reads}")
        return regions.of(split.names, split.ids, getattr(model.config, "classes", ()))
    if reads["guidance"]:
        guidance = files["guidance"]
        if guidance.size != model.guidance:
            raise InputError(f"{guidance.table.path} has vectors of {guidance.size} numbers, but {model.reads}")
        return Guided(model, split.photos, guidance.of(split.names, split.ids), features)
    return features


def _untrained(args, preset, folder, files, encoder=None):
    """(model on the host, {name: Split}, (number of photos that were left out, number of all photos)); encoder as in
    new_model"""
    from satnp.training.presets import new_model

    splits, skipped = args.world.once(lambda: _splits(args, ("train", "val"), preset.recipe.seed, folder))
    sizes = {"regions": files["regions"].sizes} if "regions" in files else {}
    if sizes and hasattr(CAPTIONERS[preset.captioner].Config, "classes"):
        sizes["classes"] = files["regions"].classes
    sizes |= {"guidance": files["guidance"].size} if "guidance" in files else {}
    model = new_model(
        preset, splits["train"], args.weights, args.preprocessing, args.finetune_from, encoder=encoder, **sizes
    )  # fmt: skip
    return model, splits, skipped


def _splits(args, which, seed, folder=None):
    """({name: Split}, (number of photos that were left out, number of all photos)); notes about photos are in `folder`."""
    from satnp.data.datasets import load_splits

    splits = load_splits(args.data, which, args.root, seed, args.captions, args.skip_bad, folder)
    skipped = sum(split.skipped for split in splits.values())
    return splits, (skipped, skipped + sum(len(split.names) for split in splits.values()))


def _features(args, model, splits, recipe, folder):
    """The feature stores of the training photos, of these mirrored (or None) and of the validation photos."""
    from satnp.data.features import feature_store

    asked = ("train", False), ("train", True) if recipe.mirror else None, ("val", False)
    return [which and feature_store(folder, model, splits[which[0]], which[1], args.world) for which in asked]


def _check_kind(args, model):
    """Raise InputError if the model describes clips and the data are photos, or the reverse."""
    if reads_clips(model.encoder) != (args.data == "moving_scenes"):
        theirs, ours = ("clips", "photos") if reads_clips(model.encoder) else ("photos", "clips")
        raise InputError(f"{args.checkpoint} describes {theirs}, and {args.data} are {ours}; give other data with --data")


def _say_skipped(skipped, photos):
    if skipped:
        complain(f"skipped {skipped} of {photos} photos")


def _start_from(model, path, whole_only=False, captions=()):
    """Copy the parameters of checkpoint `path` into the model: all of them -> True, or, if its captioner is another, the
    encoder's -> False, unless `whole_only`; and a hash of the parameters of `path`.

    Raises InputError if they do not fit. captions: those of the training photos.
    """
    from satnp import load
    from satnp.data.features import fingerprint
    from satnp.scores.evaluation import MOSTLY_UNKNOWN, unknown_share

    other = load(path)
    whole = model.captioner == other.captioner
    if whole_only and not whole:
        raise InputError(
            f"{path} has the captioner {other.captioner}, and this training {model.captioner}; "
            f"add --captioner {other.captioner}"
        )
    ours, theirs = (
        {name: shape for name, shape in m.shapes().items() if whole or name.startswith("encoder.")} for m in (model, other)
    )
    same = {
        "another encoder": model.encoder == other.encoder,
        "another vocabulary": not whole or model.vocabulary.words == other.vocabulary.words,
        "other sizes": ours == theirs,
        "another preprocessing": getattr(model.encoder_config, "preprocessing", None)
        == getattr(other.encoder_config, "preprocessing", None),
        "another [encoder_config]": model.encoder_config == other.encoder_config,
        "other encoder weights": not model.keeps_features
        or model.encoder != other.encoder
        or fingerprint(model) == fingerprint(replace(other, finetune_from=model.finetune_from)),
    }  # fmt: skip
    for what, fits in same.items():
        if not fits:
            where = ""
            if what == "other sizes":
                name = next(name for name in ours | theirs if ours.get(name) != theirs.get(name))
                where = f" ({name} is {theirs.get(name, 'not')} there and {ours.get(name, 'not')} here)"
            if what == "another vocabulary":
                share = unknown_share(other.vocabulary.encode(words) for said in captions for words in said)
                where = f" ({share:.0%} of the words of these captions are not in it)" * (share >= MOSTLY_UNKNOWN)
            raise InputError(f"{path} has {what} than this training{where}; start from a model of the same kind and data")
    if whole:
        model.params.flat[...] = other.params.flat
    else:
        model.params.part("encoder").flat[...] = other.params.part("encoder").flat
    return whole, _hash(other)


def _hash(model):
    return sha256(model.params.flat.tobytes()).hexdigest()[:16]


def caption(args):
    """Print one caption per photo."""
    from satnp import load
    from satnp.arrays.backend import xp_of
    from satnp.data.scenes import read_objects
    from satnp.data.split import Split
    from satnp.encoders.clips import picture, read_input
    from satnp.files import write_json
    from satnp.model import NO_WORDS
    from satnp.page.captions import captioner_entry, labels, photo_entry, view_entry, write_captions

    _check_outputs(args)
    args.checkpoint, args.photos = _checkpoint_and_photos([*filter(None, [args.checkpoint]), *args.photos])
    model, _ = _load(args)
    (photos, ids), files = _photos(args), _files(args)
    rows, results, drawn, shown, unheard = [], [], set(RESERVED), [], None
    models = [model, *(load(path).on(xp_of(model.params.flat)) for path in args.others)]
    if len({reads_clips(x.encoder) for x in models}) > 1:
        raise InputError("some of these checkpoints caption clips and others photos; give checkpoints of one kind")
    captioners = _captioners(models, files, Split([path.name for path in photos], None, photos, ids=ids), args.seed)
    for n, path in enumerate(photos):
        try:
            photo = read_input(model.encoder_config, path, resize=False)
        except InputError as error:
            if not args.skip_bad:
                raise
            complain(f"skipped: {error}")
            continue
        found = [captioner.look_and_say(n, photo, args.beam, every=bool(args.page)) for captioner in captioners]
        said = found[0][1][0]
        try:
            log_p = "" if said.log_prob is None else f"  (log p {said.log_prob:.2f})"
            print(printable(f"{path}: {str(said) or NO_WORDS}{log_p}"), flush=True)
        except OSError as error:  # stdout takes no more lines; the files that were asked for are still written
            unheard = error
            if not (args.json or args.results or args.figures or args.page):
                raise
        results.append({"image_id": ids[n], "caption": str(said)})
        if args.json:
            rows.append({"photo": str(path), "caption": str(said), "log_prob": said.log_prob, "words": said.words,
                         "alpha": None if said.alpha is None else said.alpha.round(5).tolist()})  # fmt: skip
        if args.figures:
            try:
                _draw(args.figures, model, photo, path.stem, said, drawn, captioners[0].boxes(n))
            except MemoryError:
                if not args.skip_bad:
                    raise
                complain(f"there is no figure of {path}: drawing it needs more memory than there is")
        if args.page:
            views = [
                view_entry(x.model, *of, x.boxes(n), _objects(x.model, photo))
                for x, of in zip(captioners, found, strict=True)
            ]
            shown.append(photo_entry(path.name, picture(photo), views, read_objects(path)))
    if not results:
        raise InputError(f"none of the {len(photos)} photos can be read (the first is {photos[0]}); give undamaged photos")
    if args.json:
        write_json(args.json, rows)
    if args.results:
        write_json(args.results, results)
    if args.page:
        names = labels([args.checkpoint, *args.others])
        write_captions(args.page, [captioner_entry(*of) for of in zip(names, models, strict=True)], shown, args.beam)
    _say_skipped(len(photos) - len(results), len(photos))
    if unheard:
        raise unheard


def _draw(folder, model, photo, stem, said, drawn, boxes):
    """Write the figures of one photo: its Caption, its regions' boxes or None. `drawn` are the names that are taken."""
    from satnp.encoders.clips import picture
    from satnp.figures import attention_figure, channels_figure, objects_figure, regions_figure, visual_figure
    from satnp.model import NO_WORDS
    from satnp.scores.visual import visual

    alphas = None if said.alpha is None else said.alpha.reshape(len(said.alpha), -1)
    name, title = _new_name(stem, drawn), printable(str(said)) or NO_WORDS
    if model.encoder == "regions":
        regions_figure(photo, said.words, alphas, boxes, folder / f"{name}.png", title, model.has_sentinel)
    elif found := _objects(model, photo):
        objects_figure(photo, found, folder / f"{name}.png", title=title)
    else:
        attention_figure(picture(photo), said.words, alphas, model.grid, folder / f"{name}.png", title=title)
    if model.has_sentinel:
        visual_figure(said.words, visual(said), folder / f"{name}.visual.png", title)
    if channels := model.channels(photo, said.words):
        channels_figure(picture(photo), said.words, *channels, model.grid, folder / f"{name}.channels.png", title)


def _objects(model, photo):
    """The objects that a captioner found in a photo: [(words, box)], boxes in its pixels; none if it looks for none"""
    height, width = photo.shape[:2]
    return [(" ".join(words), box * (width, height, width, height)) for words, box in model.objects(photo) or ()]


class _Captioner(NamedTuple):
    """One of the checkpoints that caption the same photos."""

    model: object
    files: dict  # those that the model reads
    kept: object  # what it reads of the photos from them, or None
    rng: object

    def look_and_say(self, n, photo, beam, every):
        """Caption photo n -> its annotations (1, L, D), and its captions, best first: with `every` all of the beam"""
        from satnp.arrays.backend import to_device, xp_of

        model, kept = self.model, self.kept
        seen = model.look(photo) if kept is None else model.encode(to_device(kept[n : n + 1], xp_of(model.params.flat)))[0]
        found = model.decode(seen, beam, rng=self.rng, every=every)
        return seen, [model.describe(decoded) for decoded in (found[0] if every else found)]

    def boxes(self, n):
        """The regions of photo n (k, 4), or None"""
        return self.files["regions"].boxes(self.kept.rows[n]) if "regions" in self.files else None


def _captioners(models, files, split, seed):
    """[_Captioner]. A file is for the models that read it; if there are none, the first model refuses it."""
    found = []
    for model in models:
        mine = {name: x for name, x in files.items() if READERS[name](model) or not any(map(READERS[name], models))}
        found.append(_Captioner(model, mine, _from_files(model, mine, split), np.random.default_rng(seed)))
    return found


def _check_outputs(args):
    """Raise InputError for an output that cannot be a file, and for two of the same name: one would replace the other."""
    from satnp.files import writable

    page, others = vars(args).get("page"), vars(args).get("others")
    if others and not page:
        raise InputError(f"--with {others[0]} is for the page; add --page FILE.html, or leave out --with")
    if page and page.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--page names {page}; give a file whose name ends with .html")
    given = {"--json": args.json, "--results": args.results, "--page": page}
    taken = {}
    for option, path in given.items():
        if path is None:
            continue
        folder = next(parent for parent in writable(path).absolute().parents if parent.exists())
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise InputError(f"{option} {path} cannot be written: {folder} is not a folder that takes files; give another")
        other, first = taken.setdefault(os.path.abspath(path), (option, path))
        if other != option:
            raise InputError(f"{other} and {option} both name {first}; give each of them a file of its own")


def _checkpoint_and_photos(names):
    """Divide the names after `caption` -> (path of the checkpoint, or None if the first one is a photo; names of photos)"""
    from satnp.files import there

    checkpoint, photos = (Path(names[0]), names[1:]) if _is_checkpoint(names[0]) else (None, names)
    if not photos and there(checkpoint):
        raise InputError(f"{checkpoint} is a checkpoint, and no photo is named after it; give the photos too")
    for name in photos:
        if _is_checkpoint(name):
            raise InputError(f"{name} is no photo; give one checkpoint, and the photos after it")
    return checkpoint, photos


def _is_checkpoint(name):
    """True for a checkpoint, a name that ends like one, and weights, which `checkpoint.load` refuses with a sentence."""
    from satnp.encoders.weights import CHECKPOINT, ENDINGS, form_of
    from satnp.files import there

    form, ending = form_of(name) if there(name) else None, Path(name).suffix.lower()  # a pipe is no file, and not opened
    return form == CHECKPOINT or ending == ".npz" or form is not None and ending in (*ENDINGS, "")


RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}  # by Windows


def _new_name(stem, taken):
    """`stem`, with a number if one of its figures would have a name that is in `taken`; adds the names to `taken`.

    Names are the same that a file system may take for one: a.png and A.png, and those that differ in how é is written.
    """
    if len(os.fsencode(stem)) > 200:  # of the 255 bytes that a name may have
        stem = os.fsencode(stem)[:200].decode(errors="ignore")
    name, k = stem, 1
    while taken & (names := {normalize("NFC", name + ending).casefold() for ending in ("", ".visual", ".channels")}):
        k += 1
        name = f"{stem}-{k}"
    taken |= names
    return name


def _photos(args):
    """The photos that the command line names -> their paths and their image ids; a .json file of COCO lists them."""
    from satnp.data.forms import image_id, read_images
    from satnp.data.names import files_below, hint, some
    from satnp.files import there

    photos, listed = [], [name for name in args.photos if name.lower().endswith(".json")]
    if bool(listed) != bool(args.root):
        raise InputError(f"{listed[0]} lists photos; give the folder that has them with --root DIR" if listed else
                         "--root is the folder of the photos that a COCO file lists, and there is none; leave out --root")
    for name in args.photos:
        if name in listed:
            found = read_images(Path(name))
            missing = [file for file in found if not there(args.root / file)]
            if missing and not args.skip_bad:
                near = hint(missing, list(found), files_below(args.root, args.root))
                todo = f"{near}: write both alike" if near else "add them"
                count = f"{len(missing)} of the {len(found)} photos of {name} (the first is "
                todo = f"are not in {args.root}; {todo}, or leave them out with --skip-bad"
                raise InputError(f"{count}{some(missing, count + todo)}) {todo}")
            photos += [(args.root / file, i) for file, i in found.items()]
        else:
            photos += [(path, image_id(path)) for path in _expand(name)]
    owner = {}
    for path, i in photos:
        if owner.setdefault(i, path) is not path and args.results:
            raise InputError(f"{owner[i]} and {path} have the same image id, {i}; give one of them, or leave out --results")
    paths, ids = zip(*photos, strict=True)
    return list(paths), ids


def _expand(name):
    """The photos that match a name or a pattern: some shells do not expand patterns, and names may contain brackets."""
    return [Path(path) for path in ([] if os.path.exists(name) else sorted(glob(name))) or [name]]


def evaluate(args):
    """Print the scores of free-running captions."""
    from satnp.files import write_json
    from satnp.scores.evaluation import caveats, meteor_or_reason
    from satnp.scores.evaluation import evaluate as score
    from satnp.scores.visual import visual_words

    _check_outputs(args)
    model, notes = _load(args)
    _check_kind(args, model)
    splits, skipped = _splits(args, (args.split,), notes["recipe"].get("seed", 0))
    split = splits[args.split]
    scores, captions = score(model, split, args.beam, _from_files(model, _files(args), split), args.seed)
    meteor, missing = meteor_or_reason(split, captions)
    remarks = caveats(model, split)
    visual = visual_words(captions) if model.has_sentinel else None
    if args.json:
        setting = {
            "checkpoint": str(args.checkpoint), "step": notes.get("step"), "data": args.data, "split": args.split,
            "photos": len(split.names), "skipped": split.skipped,
            "beam": args.beam, "length_score": asdict(model.length_score),
            "attention": getattr(model.config, "attention", None), "decoding": getattr(model.config, "decoding", None),
            "seed": args.seed,
            "tokeniser": "coco-caption rule", "satnp": __version__, "notes": remarks,
        }  # fmt: skip
        if visual is not None:
            rows = [{"word": word, "visual": value, "count": count} for word, value, count in visual]
            setting["visual_words"] = rows
        write_json(args.json, scores | {"METEOR": meteor} | setting)
    if args.results:
        named = zip(split.ids or split.names, captions, strict=True)
        write_json(args.results, [{"image_id": name, "caption": str(said)} for name, said in named])
    looking = f", looking by {model.config.decoding}" if getattr(model.config, "hard", False) else ""
    what = "clips" if reads_clips(model.encoder) else "photos"
    print(f"{len(split.names)} {what} of {args.data} {args.split}, beam {args.beam}{looking}, coco-caption's tokens")
    for name, value in scores.items():
        print(f"  {name:24} {value:.4f}")
    print(f"  not computed: {missing}" if missing else f"  {'METEOR':24} {meteor:.4f}")
    for note in remarks:
        print(f"  note: {note}")
    if visual is not None:
        _print_visual_words(visual)
    _say_skipped(*skipped)


ALIGNED = 5  # photos of `satnp rank --figures`


def rank(args):
    """Print recall and median rank of a ranking model, both ways."""
    from satnp import load
    from satnp.early import ranking
    from satnp.encoders.clips import picture, read_input
    from satnp.figures import attention_figure
    from satnp.files import write_json
    from satnp.scores.evaluation import annotation_chunks
    from satnp.scores.ranking import ranks, recalls

    model = load(args.checkpoint)
    if model.captioner != "ranking":
        raise InputError(
            f"{args.checkpoint} has the captioner {model.captioner}, which does not rank; give one that "
            "satnp train --captioner ranking wrote"
        )
    if args.figures and model.config.sentences != "words":
        raise InputError('--figures shows words on locations, and this model has sentences = "lstm"; leave it out')
    _check_kind(args, model)
    splits, skipped = _splits(args, (args.split,), 0)
    split, p, config = splits[args.split], model.params.part("decoder"), model.config
    sentences = [model.vocabulary.encode(words)[1:-1] for captions in split.captions for words in captions]
    of = [n for n, captions in enumerate(split.captions) for _ in captions]
    seen = [annotations for _, annotations in annotation_chunks(model, split)]
    S = ranking.similarities(p, config, ranking.seen_of(config, np.concatenate(seen)), sentences)
    if len(split.names) < 2:
        raise InputError(f"{args.data} {args.split} has one photo, which has no rank; give two or more")
    found = recalls(ranks(S, np.array(of)))
    if args.json:
        write_json(args.json, found | {"photos": len(split.names), "sentences": len(sentences), "split": args.split})
    print(f"{len(split.names)} photos and {len(sentences)} sentences of {args.data} {args.split}")
    for way, scores in found.items():
        print(f"  {way:18}" + "".join(f"  {name} {value:.3f}" for name, value in scores.items() if name != "median")
              + f"  median rank {scores['median']:g}")  # fmt: skip
    for n, (name, photo) in enumerate(zip(split.names[:ALIGNED], split.photos, strict=False)) if args.figures else ():
        best = sentences[S[n].argmax()]
        words, shares = [model.vocabulary.words[i] for i in best], ranking.alignment(p, config, model.look(photo), best)
        path, title = args.figures / f"{Path(name).stem}.png", printable(" ".join(words))
        seen = picture(read_input(model.encoder_config, photo, resize=False))
        attention_figure(seen, words, shares, model.grid, path, title=title)
    _say_skipped(*skipped)


def release(args):
    """Write a released captioner."""
    from satnp.checkpoint import load_training, release
    from satnp.files import there

    model, _, notes = load_training(args.checkpoint)
    if there(args.file) and args.file.samefile(args.checkpoint):
        raise InputError(f"--out is the checkpoint {args.checkpoint} itself; give another name")
    packaged = release(args.file, model, **notes)
    where = "it reads the encoder's weights from their package" if packaged else "the encoder's weights are in it"
    print(printable(f"{args.file}: {args.file.stat().st_size / 1e3:,.0f} kB; {where}"))


def _print_visual_words(table, rows=10):
    """Print the first and the last rows of scores.visual.visual_words, or all of them when they are few."""
    from satnp.scores.visual import LEAST

    print(f"1 - beta of the words that were said {LEAST} times or more" + ("" if table else ": there are none"))
    few = len(table) < 2 * rows
    for title, part in (
        [("from most to least visual", table)] if few else [("most visual", table[:rows]), ("least visual", table[-rows:])]
    ):
        if part:
            print(f"  {title}:")
        for word, value, count in part:
            print(f"    {printable(word):22} {value:.4f}  ({count} times)")


def _device(args):
    from satnp.arrays.backend import find_device

    xp, sentence = find_device(args.device, args.world.place)
    if args.device != "numpy":
        print(sentence)
    args.world.sum_on(xp)
    return xp


def _load(args):
    """Load (model on its device, notes) from the checkpoint, or from the one that comes with satnp.

    --weights, --decoding and --length-score replace values of it.
    """
    from satnp.checkpoint import load_training, released

    xp = _device(args)
    args.checkpoint = Path(args.checkpoint or released())
    model, _, notes = load_training(args.checkpoint)
    if args.weights:
        encoder = ENCODERS[model.encoder]
        if not hasattr(encoder, "load"):
            raise InputError(f"the encoder {model.encoder} has no pretrained weights; leave out --weights")
        if not model.frozen:
            raise InputError(f"{args.checkpoint} has a fine-tuned encoder of its own; leave out --weights")
        model.params.part("encoder").flat[...] = encoder.load(args.weights, model.encoder_config).flat
    if args.decoding:
        if not getattr(model.config, "hard", False):
            raise InputError(f"{args.checkpoint} has soft attention, which looks everywhere; leave out --decoding")
        model.config = replace(model.config, decoding=args.decoding)
    if args.length_score:
        model.length_score = replace(model.length_score, kind=args.length_score)
    return model.on(xp), notes
