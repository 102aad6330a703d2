"""What satnp prints: text of any file, in any language, on any terminal, and sentences about errors on stderr."""

import os
import sys
import unicodedata
from contextlib import ExitStack, contextmanager, suppress

LONGEST = 300  # characters of a sentence about an error
HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # Unicode's categories: control, format, surrogate, line and paragraph separator
JOINERS = "\u200c\u200d"  # format characters that belong to words of some scripts, and to emoji


def printable(text):
    """Write what would move the cursor, change the order of the text or not be seen as an escape: a newline becomes \\n."""
    if text.isprintable():
        return text
    return "".join(
        x.encode("unicode_escape").decode() if unicodedata.category(x) in HIDDEN and x not in JOINERS else x for x in text
    )


def sentence(text, longest=LONGEST):
    """Make `text` printable, and cut its middle if it is longer than `longest` characters; its end says what to do."""
    text = printable(text)
    if len(text) <= longest:
        return text
    end = longest // 2 - 5
    return f"{text[: longest - end - 5]} ... {text[-end:]}"


def few(items, letters=120):
    """Join the first items by semicolons, as many as have `letters` characters together, and say how many more there are."""
    shown = 1
    while shown < len(items) and len("; ".join(items[: shown + 1])) <= letters:
        shown += 1
    return "; ".join(items[:shown]) + (f"; and {len(items) - shown} more" if shown < len(items) else "")


def complain(text, begin="satnp"):
    """Print a sentence about an error to stderr; it begins with the name of the program, or with "warning"."""
    print(sentence(f"{begin}: {text}"), file=sys.stderr)


@contextmanager
def any_text():
    """Context manager: stdout and stderr take any text, as escapes if their encoding lacks it; where there is none (a
    Windows program without a console) or it is closed, the text is dropped."""
    with ExitStack() as stack:
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is None or getattr(stream, "closed", False):
                stack.callback(setattr, sys, name, stream)
                setattr(sys, name, stack.enter_context(open(os.devnull, "w", encoding="utf-8")))
            else:
                stack.callback(_restore, stream, getattr(stream, "errors", None))
            _escape(getattr(sys, name), "backslashreplace")
        yield


def _restore(stream, errors):
    try:
        stream.flush()
    except OSError:  # nobody reads it, or its disk is full: Python must not try again when it ends
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    _escape(stream, errors)


def _escape(stream, errors):
    """Set what a stream does with text that its encoding lacks; streams of other kinds take any text."""
    if hasattr(stream, "reconfigure"):
        with suppress(OSError):
            stream.reconfigure(errors=errors)
