"""The exception for errors that the user can fix."""

from satnp.terminal import LONGEST, sentence


class InputError(ValueError):
    """Bad input: one sentence that says what was seen, what was wanted and what to do.

    The command line prints it and exits with status 2; in Python it is an ordinary ValueError. The sentence is printable
    and not too long for a terminal, whatever the file that it quotes contains.
    """

    def __init__(self, text):
        super().__init__(sentence(text, LONGEST - len("satnp: skipped: ")))
