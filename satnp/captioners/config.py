"""What every captioner's Config checks: its numbers and its choices."""

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
            if name.endswith("dropout") and not 0 <= value < 1:
                raise InputError(f"{name} is {value}; choose a rate from 0 to below 1")
            if field.type is float and not 0 <= value < float("inf"):
                raise InputError(f"{name} is {value}; choose 0 or more")


def check_choices(config, choices):
    """Raise InputError for a field of the dataclass `config` that is not among its choices {name: (value, ...)}."""
    for name, values in choices.items():
        if getattr(config, name) not in values:
            *others, last = map(str, values)
            raise InputError(f"{name} is {getattr(config, name)!r}; choose {', '.join(others)} or {last}")
