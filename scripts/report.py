"""Makes the tables and figures of a sweep from its result files: ``report.py runs/NAME``."""

import sys

from fate_gym.lab.cli import report_main

if __name__ == "__main__":
    sys.exit(report_main())
