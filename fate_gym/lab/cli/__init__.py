"""The command ``fate-gym``."""

from fate_gym.lab.cli.app import main

__all__ = ["main"]
