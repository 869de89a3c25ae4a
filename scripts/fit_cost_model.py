"""Fits the cost model on measured times: ``DATA_DIR [--write]`` (`fate_gym.lab.cost_fit`)."""

from fate_gym.lab.cost_fit import main

if __name__ == "__main__":
    main()
