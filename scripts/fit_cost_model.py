"""Fits the cost model to measured times: ``fit_cost_model.py DATA [--write]``.

The same as ``fate-gym fit-cost-model``.
"""

import sys

from fate_gym.lab.cli import main

if __name__ == "__main__":
    sys.exit(main(["fit-cost-model", *sys.argv[1:]]))
