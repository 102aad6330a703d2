"""What people get wrong, planted in satnp's source: an array that equals what a mistake gives is told as that mistake.

Of several that give the same array the first is named. A sentence says what kind of wrong it is, never what is right.
"""

from lessons.assignments.declare import Edit, Mistake
from lessons.assignments.through_time import lstm_backward
from satnp.layers.lstm import _cell_gradient

MISTAKES = {
    "A2": (
        Mistake(
            "c-path", "what c of a step is told by the step after it is lost",
            (Edit(lstm_backward, "dc = dc_prev + (1 - live) * dc", "dc = 0 * dc_prev"),),
        ),
        Mistake("gate", "the gate f gets no gradient", (Edit(_cell_gradient, "df = dc * c_prev", "df = 0 * c_prev"),)),
    ),
}  # fmt: skip
