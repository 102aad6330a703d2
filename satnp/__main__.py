"""python -m satnp is the command satnp."""

import sys

from satnp.cli import main

sys.exit(main())
