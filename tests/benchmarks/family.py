"""Measure a training step and the decoding of every captioner, one line each. Nothing is asserted.

    python -m tests.benchmarks.family [CAPTIONER ...] [--json FILE]

Each captioner has the sizes of `satnp train --data flickr8k --encoder squeezenet1_1`: 64 photos of 169 locations with 512
features, 12 words and a vocabulary of 2,543, so that show_attend_tell is `step_flickr8k` of the other table. Neural Baby
Talk reads 36 regions of 80 classes. Measurements and peers are those of `python -m tests.benchmarks`. The columns:

    step      median time of a training step: forward, backward, clipping, Adam
    MiB       its peak memory
    beam 3    median time of decoding 64 photos, 12 words each
    eager     ratio of our step to that of eager PyTorch; compile: of torch.compile; loop: of a loop written by hand in NumPy
    spread    largest interquartile range of these ratios
    error     largest relative difference from a peer
"""

import argparse
import sys
from pathlib import Path

from satnp.captioners import CAPTIONERS
from satnp.files import write_json
from tests.benchmarks.__main__ import LEAST, cell, machine, peers, row

RATIOS = {"eager": 8, "compile": 9, "loop": 7}  # {peer: width of its column}
ALONE = {"most": LEAST}  # repetitions of what is not compared


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captioners", nargs="*", metavar="CAPTIONER", help=f"{', '.join(CAPTIONERS)}; default: all")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    for name in args.captioners:
        if name not in CAPTIONERS:
            parser.error(f"there is no captioner {name!r}; choose from {', '.join(CAPTIONERS)}")
    print(machine())
    ratios = "".join(f"{peer:>{width}}" for peer, width in RATIOS.items())
    print(f"{'captioner':18}{'step, ms':>10}{'MiB':>6}{'beam 3, ms':>12}{ratios}{'spread':>8}{'error':>8}")
    rows = []
    for name in args.captioners or CAPTIONERS:
        steps = [row(f"step_{name}", peer, **ALONE if peer == "none" else {}) for peer in peers(f"step_{name}")]
        beam = row(f"beam3_{name}", "none", **ALONE)
        print(shown(name, steps, beam), flush=True)
        rows += [*steps, beam]
    if args.json:
        write_json(args.json, rows)


def shown(name, steps, beam):
    """Format the line of a captioner from the rows of its training step, one for each peer, and of its decoding."""
    ours = next((row for row in steps if not row["reason"]), steps[0])
    of = {row["peer"]: row for row in steps}
    largest = {
        field: max((row[field] for row in steps if row[field] is not None), default=None)
        for field in ("spread", "max_relative_error")
    }
    line = (
        f"{name:18}" + cell(ours, "ours_s", ",.1f", 10, 1e3) + cell(ours, "peak_memory_bytes", ",.0f", 6, 2**-20)
        + cell(beam, "ours_s", ",.1f", 12, 1e3)
        + "".join(cell(of.get(peer, {"ratio": None}), "ratio", ".2f", width) for peer, width in RATIOS.items())
        + cell(largest, "spread", ".2f", 8) + cell(largest, "max_relative_error", ".0e", 8)
    )  # fmt: skip
    failed = [f"    {row['name']}, {row['peer']}: {row['reason']}" for row in [*steps, beam] if row["reason"]]
    return "\n".join([line, *failed])


if __name__ == "__main__":
    sys.exit(main())
