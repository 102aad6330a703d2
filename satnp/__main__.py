"""The command satnp, and python -m satnp: settings of the process first, then the command line."""

import sys

from satnp.arrays import runtime


def main():
    """Run one command in a process of its own -> exit status of cli.main"""
    runtime.tune()
    runtime.ignore_matplotlibrc()
    from satnp.cli import main  # imports NumPy, which reads the settings

    return main()


if __name__ == "__main__":
    sys.exit(main())
