"""Names of photos in captions files and lists: those that lead out of the folder, and those that nearly fit."""

import os
import posixpath
import re
import unicodedata
from itertools import islice
from urllib.parse import unquote

SHOWN, LETTERS = 5, 280  # most names in a message, and the most letters of a message with more than one name
FILES = 100_000  # most files that `files_below` looks at

# How two names of one photo may differ, and the function that removes this difference and is applied after those before it.
_DIFFERENCES = (
    ("Unicode form (NFC or NFD)", lambda name: unicodedata.normalize("NFC", name)),
    ("spaces or invisible characters",
     lambda name: "".join(c for c in name if unicodedata.category(c)[0] != "C").strip()),
    ("quotes or brackets", lambda name: name.strip(" '\"`´“”„‘’‚«»,;<>[]")),
    ("\\ for /", lambda name: name.replace("\\", "/")),
    ("how its folder is written", posixpath.normpath),
    ("letters written as %20", unquote),
    ("what follows the name",
     lambda name: re.sub(r"#\d+$|\.$|(?<=\.\w{3})[\s,;|#:?&].*|(?<=\.\w{4})[\s,;|#:?&].*", "", name)),
    ("small and capital letters", str.casefold),
    ("its ending", lambda name: re.sub(r"(\.[a-z]{3,4})+$", "", name)),
    ("zeros or COCO_ in front", lambda name: re.sub(r"(?:^|(?<=/))(?:coco_[a-z\d]+_)?0*(?=\d+$)", "", name)),
    ("its folder", posixpath.basename),
    ("spaces and signs", lambda name: re.sub(r"\W|_", "", name)),
)  # fmt: skip


def leads_out(name):
    """True if the name is no place in a folder: it is absolute or a URL, has a drive, or `..` takes it out of the folder."""
    place = name.replace("\\", "/")
    away = place.startswith("/") or re.match(r"[A-Za-z]:|[A-Za-z][\w+.-]*://", place)
    return away or f"{posixpath.normpath(place)}/".startswith("../")


def some(names, message=""):
    """The first of the names, as the end of "the first is"; as many as fit into a message with this other text."""
    first, *others = map(_shown, names[:SHOWN])
    while others and len(message) + len(", ".join([first, *others])) > LETTERS:
        others.pop()
    return first + ", then " * bool(others) + ", ".join(others)


def hint(missing, names, there):
    """What a message says of a name in `there` that nearly fits one that is `missing`, or of a header; "" if nothing.

    `names` are all names of the list, in its order, and `missing` those of them that are not `there`.
    """
    ours, theirs = list(missing), list(set(there).difference(names))
    keys, others = ours, theirs
    for what, change in _DIFFERENCES:
        keys, others = list(map(change, keys)), list(map(change, others))
        found = {}
        for name, key in zip(theirs, others, strict=True):
            found.setdefault(key, []).append(name)
        for name, key in zip(ours, keys, strict=True):
            if len(found.get(key, ())) == 1:
                return f"there is {_shown(found[key][0])}, which differs from {_shown(name)} in {what}"
    if missing[0] == names[0] and not re.search(r"[\d./\\]", names[0]):
        return f"{_shown(names[0])} looks like a header, whose line must go"
    return ""


def files_below(root, folder):
    """The files below `root`: by their place in `folder`, or in `root` if they are not in `folder`."""
    paths = (os.path.normpath(os.path.join(where, name)) for where, _, names in os.walk(root) for name in names)
    inside = os.path.join(folder, "")
    return [
        os.path.relpath(path, folder if path.startswith(inside) else root).replace(os.sep, "/")
        for path in islice(paths, FILES)
    ]


def _shown(name):
    """The name, quoted if it has characters or spaces that cannot be seen, and without its middle if it is long."""
    if len(name) > 60:
        name = f"{name[:28]}...{name[-28:]}"
    return name if name.isprintable() and name == name.strip() else repr(name)
