"""The base class of every captioner's Config: it checks the numbers."""

from dataclasses import fields

from satnp.errors import InputError

LARGEST = 1_000_000  # the largest size


class Validated:
    """Base class of a Config, a frozen dataclass: raises InputError for a number out of range.

    Integers are sizes, from 1 to LARGEST; `dropout` is a rate, from 0 to below 1; other floats are 0 or more.
    """

    def __post_init__(self):
        for field in fields(self):
            name, value = field.name, getattr(self, field.name)
            if field.type is int and not 1 <= value <= LARGEST:
                raise InputError(f"{name} is {value}; choose 1 to {LARGEST}")
            if name == "dropout" and not 0 <= value < 1:
                raise InputError(f"dropout is {value}; choose a rate from 0 to below 1")
            if field.type is float and not 0 <= value < float("inf"):
                raise InputError(f"{name} is {value}; choose 0 or more")
