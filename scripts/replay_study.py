"""Replays ten workloads on a measured device: ``--gpu FILE.yaml#NAME`` (`lab.replay.study`)."""

from fate_gym.lab.replay.study import main

if __name__ == "__main__":
    main()
