"""Write rendered clips as animated PNG files, to caption them: the first test clips of --data moving_scenes.

    python data_scripts/clips.py clips --count 10
    satnp caption runs/clips/best.npz clips/*.png --page page.html
"""

import argparse
import sys
from pathlib import Path

from satnp.cli import at_least
from satnp.data.moving_scenes import make_clips, write_clip
from satnp.terminal import any_text, printable


@any_text()
def main(arguments=None):
    """Write the files -> exit status 0"""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--count", type=at_least(1), default=10, metavar="N", help="default: 10")
    parser.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="that of the training; default: 0")
    args = parser.parse_args(arguments)
    for clip in make_clips(args.count, "test", args.seed):
        path = args.folder / f"{clip.name}.png"
        write_clip(path, clip)
        print(printable(f"{path}: {clip.captions[0]}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
