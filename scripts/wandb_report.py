"""Makes a saved view of a sweep's runs in W&B: ``wandb_report.py runs/NAME --entity ME``."""

import sys

from fate_gym.lab.tracking.view import main

if __name__ == "__main__":
    sys.exit(main())
