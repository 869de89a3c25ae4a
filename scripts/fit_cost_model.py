"""Fits the cost model on measured times: ``fit_cost_model.py DATA_DIR [--write]`` (see `fate_gym.lab.cost_fit`)."""

from fate_gym.lab.cost_fit import main

if __name__ == "__main__":
    main()
