"""The process of a submission: python -I -S worker.py JOB. It reads arrays, makes calls and answers with the results.

JOB is a JSON file with the readable paths, the limits and the calls. The first answer says what confines the process. Then,
for each line "k" on stdin, the process makes call k with the arrays of k.npz and answers. An answer is a line of JSON, in
which "arrays" has the name, the dtype and the shape of each array, and then the numbers of these arrays.
"""

import json
import os
import sys
import traceback
from contextlib import nullcontext
from pathlib import Path


class Refuse:
    """Import finder that refuses the modules which a submission may not import."""

    def __init__(self, names):
        self.names = names

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ImportError(f"{name} may not be imported here; use NumPy")


def main(job):
    asked, answers = os.fdopen(os.dup(0)), os.dup(1)
    for standard in 0, 1:  # discards what the submission prints
        os.dup2(os.open(os.devnull, os.O_RDWR), standard)
    here = Path(__file__).parent
    sys.path.insert(0, str(here))
    import confine

    confined = confine.confine(job)
    sys.path.append(job["libraries"])
    import calls
    import numpy as np
    import watch

    sys.path.remove(str(here))
    for name in "confine", "calls", "watch":
        del sys.modules[name]
    sys.meta_path.insert(0, Refuse(job["refused"]))
    sys.path.insert(0, job["submission"])
    answer(answers, {}, confined=confined)
    for k in map(int, asked):
        call, error, results = job["calls"][k], None, {}
        with np.load(here / f"{k}.npz", allow_pickle=False) as file:
            arrays = dict(file)
        watched = watch.Watch(call, arrays, job["submission"])
        try:
            with np.errstate(all="ignore"), watched if call.get("watched") else nullcontext():
                calls.run(call, arrays, results)
        except (Exception, SystemExit) as ended:
            error = told(ended, job["submission"])
        numbers = {n: x for n, x in results.items() if x.dtype.kind in "biufc"}
        answer(answers, numbers, error=error, stepped=watched.stepped())
    os._exit(0)  # skips threads and exit handlers of the submission


def answer(pipe, arrays, **more):
    """Write an answer, as the grader expects it."""
    about = {"arrays": [[n, x.dtype.str, x.shape] for n, x in arrays.items()]}
    rest = memoryview(json.dumps(about | more).encode() + b"\n" + b"".join(x.tobytes() for x in arrays.values()))
    while rest:
        rest = rest[os.write(pipe, rest) :]


def told(error, root):
    """{type, message, where} of an error, for the student to find it."""
    where = ""
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename.startswith(root):
            where = f"{frame.filename[len(root) :].lstrip('/')}, line {frame.lineno}, in {frame.name}"
    return {"type": type(error).__name__, "message": str(error)[:300], "where": where}


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
