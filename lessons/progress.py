"""What `python -m lessons` remembers from one call to the next: a JSON file in the folder of the figures."""

import sys

from satnp.errors import InputError
from satnp.files import read_json, reason, write_json

from .kit import FIGURES

FILE = FIGURES / "progress.json"


def of(number):
    """What is known of a lesson: {"done": True, "stopped": (cell, cells), "hints": {exercise: how many}}, each if known."""
    known, found = _all().get(number), {}
    if not isinstance(known, dict):
        return found
    if known.get("done") is True:
        found["done"] = True
    match known.get("stopped"):
        case [int(cell), int(cells)] if 0 < cell < cells:
            found["stopped"] = (cell, cells)
    if isinstance(known.get("hints"), dict):
        found["hints"] = {exercise: seen for exercise, seen in known["hints"].items() if type(seen) is int and seen >= 0}
    return found


def remember(number, **news):
    """Change what is known of a lesson; None forgets."""
    known = {name: value for name, value in (of(number) | news).items() if value is not None}
    try:
        write_json(FILE, _all() | {number: known})
    except (OSError, InputError) as error:
        print(f"lessons: cannot write {FILE} ({reason(error)}); what you did is not remembered", file=sys.stderr)


def _all():
    known = read_json(FILE)
    return known if isinstance(known, dict) else {}  # a damaged file is ignored
