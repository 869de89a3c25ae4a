"""Hydra's configuration groups, as a package so that they are found in an installed wheel."""
