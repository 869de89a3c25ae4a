"""Draws who prefills what again: ``session_figure.py suite=NAME --policies round_robin eft``."""

import sys

from fate_gym.lab.cli import session_main

if __name__ == "__main__":
    sys.exit(session_main())
