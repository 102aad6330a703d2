"""Download data sets and pretrained weights, and unpack them in the layout that satnp reads.

    python data_scripts/fetch.py flickr8k                    download into data/flickr8k; run it again to continue
    python data_scripts/fetch.py coco --from ~/Downloads     unpack the archives in this folder, without a download
    python data_scripts/fetch.py coco --check                list what is missing; exit status 1 if anything is missing
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from mechanics import Source, prepare, verify

from satnp.data.datasets import load_split
from satnp.data.forms import SPLITS
from satnp.errors import InputError
from satnp.terminal import any_text, complain, printable


@dataclass(frozen=True)
class Thing:
    """A data set or weights: the licence terms, the published files, and the satnp command that uses them."""

    terms: str
    sources: tuple
    use: str
    kinds: tuple = ()  # pairs (kind of data, captions file or None for the usual one) that --check loads
    folder: str = ""


CAPTION_DATASETS = {
    "name": "caption_datasets.zip",
    "url": "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip",
    "size": 36745453,
    "checksum": "sha256:4cfd70132527b80933105e5829dc9034eaab9573482e2e680abbab6130244817",
}
FLICKR8K = "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k"
FLICKR30K = "shannon.cs.illinois.edu/DenotationGraph"
COCO = "http://images.cocodataset.org"  # no https, because its certificate names another host; the checksums protect it

# COCO's checksums are from TensorFlow Datasets, Flickr8k's from torchvision for R. The names of the weights contain the
# first eight digits of theirs. No checksums of Flickr30k are known.
THINGS = {
    "flickr8k": Thing(
        "Flickr8k (Hodosh, Young and Hockenmaier 2013) is for non-commercial research and education.",
        (
            Source(
                "Flickr8k_text.zip",
                f"{FLICKR8K}/Flickr8k_text.zip",
                checksum="md5:bf6c1abcb8e4a833b7f922104de18627",
                members=("Flickr8k.token.txt", *(f"Flickr_8k.{part}Images.txt" for part in ("train", "dev", "test"))),
                folder="Flickr8k_text",
            ),
            Source(
                "Flickr8k_Dataset.zip",
                f"{FLICKR8K}/Flickr8k_Dataset.zip",
                checksum="md5:f18a1e2920de5bd84dae7cf08ec78978",
                members=("*.jpg",),
                folder="Flicker8k_Dataset",
            ),
        ),
        "satnp train --data flickr8k --root {root}",
        kinds=(("flickr8k", None),),
    ),
    "flickr30k": Thing(
        "Flickr30k (Young, Lai, Hodosh and Hockenmaier 2014) is for non-commercial research and education.",
        (
            Source(**CAPTION_DATASETS, members=("dataset_flickr30k.json",)),
            Source(
                "flickr30k.tar.gz", f"http://{FLICKR30K}/data/flickr30k.tar.gz", members=("results_20130124.token",)
            ),
            Source(
                "flickr30k-images.tar",
                form=f"https://{FLICKR30K}",
                members=("*.jpg",),
                folder="flickr30k-images",
                also=("flickr30k-images.tar.gz", "flickr30k-images.zip"),
            ),
        ),
        "satnp train --data flickr30k --root {root} --captions {root}/dataset_flickr30k.json",
        kinds=(("flickr30k", None), ("flickr30k", "dataset_flickr30k.json")),
    ),
    "coco": Thing(
        "COCO 2014 (Lin et al. 2014): captions CC BY 4.0, photos under their Flickr licences; 20 GB, twice that to unpack.",
        (
            Source(**CAPTION_DATASETS, members=("dataset_coco.json",)),
            Source(
                "annotations_trainval2014.zip",
                f"{COCO}/annotations/annotations_trainval2014.zip",
                size=252872794,
                checksum="sha256:031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
                members=("captions_train2014.json", "captions_val2014.json"),
                folder="annotations",
            ),
            Source(
                "val2014.zip",
                f"{COCO}/zips/val2014.zip",
                size=6645013297,
                checksum="sha256:fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
                members=("*.jpg",),
                folder="val2014",
            ),
            Source(
                "train2014.zip",
                f"{COCO}/zips/train2014.zip",
                size=13510573713,
                checksum="sha256:ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
                members=("*.jpg",),
                folder="train2014",
            ),
        ),
        "satnp train --data karpathy --root {root}",
        kinds=(("coco", None), ("karpathy", None)),
    ),
    "squeezenet": Thing(
        "SqueezeNet 1.1 as trained by torchvision, BSD 3-clause.",
        (
            Source(
                "squeezenet1_1-b8a52dc0.pth",
                "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
                size=4958839,
                checksum="sha256:b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
            ),
        ),
        "satnp train --weights {root}/squeezenet1_1-b8a52dc0.pth --preprocessing torchvision",
        folder="weights",
    ),
    "vgg19": Thing(
        "VGG-19 as trained by torchvision, BSD 3-clause.",
        (
            Source(
                "vgg19-dcbb9e9d.pth",
                "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
                size=574673361,
                checksum="sha256:dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44",
            ),
        ),
        "satnp train --encoder vgg19 --weights {root}/vgg19-dcbb9e9d.pth",
        folder="weights",
    ),
}


@any_text()
def main(arguments=None):
    """Fetch or check -> exit status: 0 complete, 1 something is missing, 2 it could not be fetched, 130 interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("thing", choices=THINGS)
    parser.add_argument("--out", type=Path, default=Path("data"), metavar="DIR", help="default: data")
    parser.add_argument("--from", type=Path, dest="given", metavar="DIR", help="use the archives in this folder")
    parser.add_argument("--check", action="store_true", help="download nothing, list what is missing")
    args = parser.parse_args(arguments)
    thing = THINGS[args.thing]
    root = args.out / (thing.folder or args.thing)
    try:
        if not args.check:
            print(thing.terms)
            for source in thing.sources:
                prepare(source, root, args.given)
        missing = list(dict.fromkeys(check(thing, root)))
    except InputError as error:
        complain(str(error), "fetch")
        return 2
    except OSError as error:
        complain(f"cannot write or read under {root} ({error.strerror or error}): fix that, run again", "fetch")
        return 2
    except KeyboardInterrupt:
        complain("interrupted; run again to continue", "fetch")
        return 130
    for sentence in missing:
        print(printable(f"missing: {sentence}"))
    if missing:
        print("run again without --check to fetch what is missing; first remove each folder that is incomplete")
        return 1
    print(f"complete: {thing.use.format(root=root)}")
    return 0


def check(thing, root):
    """Yield a sentence for each file or folder that is missing or wrong under `root`."""
    absent = [place for source in thing.sources for place in source.places if not (root / place).exists()]
    for place in absent:
        yield f"there is no {root / place}"
    if absent:
        return
    for source in thing.sources:
        if not source.members:
            try:
                verify(root / source.name, source, root)
            except InputError as error:
                yield str(error)
    for kind, captions in thing.kinds:
        for split in SPLITS:
            try:
                load_split(kind, split, root, captions=captions and root / captions)
            except InputError as error:
                yield str(error)


if __name__ == "__main__":
    sys.exit(main())
