"""Saves a W&B view of a sweep's runs: ``wandb_report.py runs/NAME --entity ME``.

The same as ``fate-gym wandb-view``.
"""

import sys

from fate_gym.lab.cli import main

if __name__ == "__main__":
    sys.exit(main(["wandb-view", *sys.argv[1:]]))
