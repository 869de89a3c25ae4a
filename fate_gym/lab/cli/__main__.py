"""``python -m fate_gym.lab.cli``, the same as ``fate-gym``."""

import sys

from fate_gym.lab.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
