"""Runs a policy on a suite, or a sweep of such jobs; ``--help`` lists the choices."""

import sys

from fate_gym.lab.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
