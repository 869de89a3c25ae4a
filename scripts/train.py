"""Trains an agent, or several; ``--help`` lists the choices.

The same as ``fate-gym train``.
"""

import sys

from fate_gym.lab.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
