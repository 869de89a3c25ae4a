"""Draws the tokens that a session prefills again: ``session_figure.py suite=NAME policy=NAME,...``.

The same as ``fate-gym session``.
"""

import sys

from fate_gym.lab.cli import main

if __name__ == "__main__":
    sys.exit(main(["session", *sys.argv[1:]]))
