"""Runs a policy on a suite, or a sweep of such jobs; ``--help`` lists the choices.

The same as ``fate-gym evaluate``.
"""

import sys

from fate_gym.lab.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
