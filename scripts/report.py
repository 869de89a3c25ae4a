"""Makes the tables and figures of a sweep from its result files: ``report.py runs/NAME``.

The same as ``fate-gym report``.
"""

import sys

from fate_gym.lab.cli import main

if __name__ == "__main__":
    sys.exit(main(["report", *sys.argv[1:]]))
