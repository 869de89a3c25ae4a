"""Trains an agent, or several; ``--help`` lists the choices."""

import sys

from fate_gym.lab.training.app import main

if __name__ == "__main__":
    sys.exit(main())
