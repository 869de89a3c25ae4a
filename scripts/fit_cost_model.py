"""Fits the cost model on measured times: ``DATA_DIR [--write]`` (`fate_gym.lab.cost_fit.app`)."""

from fate_gym.lab.cost_fit.app import main

if __name__ == "__main__":
    main()
