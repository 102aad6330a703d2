"""Convert the public bottom-up region features (Anderson et al. 2018) to the .npz file of `satnp train --regions`.

    python data_scripts/regions.py trainval_36/trainval_resnet101_faster_rcnn_genome_36.tsv --out regions.npz

Each line of a TSV file has the columns image_id, image_w, image_h, num_boxes, boxes and features; boxes (num_boxes, 4) and
features (num_boxes, D) are float32 in base64. The .npz file has the arrays that satnp/data/by_name.py reads; features are
stored as float16, and photos with fewer than k boxes are filled up with zeros.
"""

import argparse
import binascii
import sys
import zipfile
from base64 import b64decode
from pathlib import Path

import numpy as np
from tqdm import tqdm

from satnp.errors import InputError
from satnp.files import replacing
from satnp.terminal import any_text, complain, printable

COLUMNS = "image_id", "image_w", "image_h", "num_boxes", "boxes", "features"


@any_text()
def main(arguments=None):
    """Convert -> exit status: 0 done, 2 a file is missing or broken, 130 interrupted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tsv", nargs="+", type=Path, metavar="TSV")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.npz")
    args = parser.parse_args(arguments)
    try:
        if args.out.suffix != ".npz":
            raise InputError(f"--out is {args.out}; give a name that ends in .npz")
        photos, k, D = convert(args.tsv, args.out)
    except InputError as error:
        complain(str(error), "regions")
        return 2
    except OSError as error:
        complain(f"{error.filename}: {error.strerror or error}; fix that and run again", "regions")
        return 2
    except KeyboardInterrupt:
        complain("interrupted; run again", "regions")
        return 130
    print(printable(f"{args.out}: {photos} photos, at most {k} regions, {D} features"))
    return 0


def convert(paths, out):
    """Convert the TSV files `paths` to the file `out` -> numbers of photos, regions of a photo and features"""
    names, boxes, D = {}, [], None
    for place, row in _rows(paths, "reading"):
        name, of_photo, features = _parsed(place, row)
        if name in names:
            raise InputError(f"{place} is of photo {name}, as is {names[name]}: remove one of them")
        names[name] = place
        boxes.append(of_photo)
        D = D or features.shape[1]
        if features.shape[1] != D:
            raise InputError(f"{place} has {features.shape[1]} features of each box, but the lines before have {D}")
    if not names:
        raise InputError(f"{paths[0]} has no lines: give the TSV file with the features")
    n, k = len(names), max(map(len, boxes))
    padded, mask = np.zeros((n, k, 4), np.float32), np.zeros((n, k), np.uint8)
    for row, of_photo in enumerate(boxes):
        padded[row, : len(of_photo)], mask[row, : len(of_photo)] = of_photo, 1
    with replacing(out) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, x in (("names", np.array(list(names))), ("boxes", padded), ("mask", mask)):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, x)
        with archive.open("features.npy", "w", force_zip64=True) as file:  # one photo at a time: COCO's are 18 GB
            header = {"descr": "<f2", "fortran_order": False, "shape": (n, k, D)}
            np.lib.format.write_array_header_1_0(file, header)
            for place, row in _rows(paths, "writing"):
                _, _, features = _parsed(place, row)
                block = np.zeros((k, D), "<f2")
                block[: len(features)] = features
                file.write(block.tobytes())
    return n, k, D


def _rows(paths, what):
    """Yield ("line 3 of FILE", its columns) of the lines of all files, with progress."""
    for path in paths:
        with open(path, "rb") as file, tqdm(
            desc=f"{what} {path.name}", total=path.stat().st_size, unit="B", unit_scale=True, disable=None
        ) as bar:  # fmt: skip
            for number, line in enumerate(file, 1):
                yield f"line {number} of {path}", line.rstrip(b"\r\n").split(b"\t")
                bar.update(len(line))


def _parsed(place, row):
    """The columns of a line -> name, boxes (num_boxes, 4), features (num_boxes, D)"""
    try:
        if len(row) != len(COLUMNS):
            raise ValueError(f"it has {len(row)} columns in place of {', '.join(COLUMNS)}")
        name, count = row[0].decode("ascii"), int(row[3])
        boxes, features = (np.frombuffer(b64decode(text, validate=True), "<f4") for text in row[4:])
        if not name or count < 1 or len(boxes) != 4 * count or not len(features) or len(features) % count:
            raise ValueError(f"{count} boxes of photo {name!r} have {len(boxes)} coordinates and {len(features)} features")
        largest = np.finfo(np.float16).max
        if not np.isfinite(boxes).all() or not (abs(features) <= largest).all():
            raise ValueError(f"a number is not finite, or a feature is above {largest:.0f}")
    except (ValueError, binascii.Error) as error:
        raise InputError(f"{place} is broken ({error}): get the file again, or remove the line") from None
    return name, boxes.reshape(count, 4), features.reshape(count, -1)


if __name__ == "__main__":
    sys.exit(main())
