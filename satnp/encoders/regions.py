"""Region features from a file, in place of an encoder: the annotations of a photo are the features of its k regions.

A detector of another program has computed them (Anderson et al. 2018, section 3.1); satnp/data/by_name.py reads them. There
is nothing to train, and no forward pass.
"""

from dataclasses import dataclass

from satnp.arrays.parameters import Parameters


@dataclass(frozen=True)
class Config:
    k: int  # largest number of regions of a photo
    D: int

    @property
    def grid(self):
        """(1, k): the regions have no rows and columns."""
        return 1, self.k


def shapes(config):
    return {}


def init(config, rng):
    return Parameters({})
