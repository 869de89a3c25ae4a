"""Decoders of the catalogue's shapes with random weights, and the device that runs them.

Plain PyTorch: what `calibrate` measures and `replay` executes.
"""
