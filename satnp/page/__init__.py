"""Pages: each is one HTML file with its photos, numbers, style and script in it, and loads nothing from the internet.

page.html is the frame of all pages, page.css their style, common.js what their scripts share; captions.js and progress.js
build the two pages from the JSON in the file. They set text as text, never as HTML.
"""

import html
import json
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from string import Template

from satnp.files import replacing
from satnp.terminal import printable


def write_page(path, title, data, script):
    """Write a page with a title, the JSON values `data` and the script `script`.

    The Content-Security-Policy allows this style and this script, by their hashes, images inside the file, and nothing else.
    """
    style, code = _read("page.css"), _read("common.js") + _read(script)
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src {_hash(style)}; script-src {_hash(code)}"
    )
    text = Template(_read("page.html")).substitute(
        policy=policy, title=html.escape(printable(title)), style=style, script=code,
        data=json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
    )  # fmt: skip
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _read(name):
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def _hash(text):
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
