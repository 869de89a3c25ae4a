"""Descriptions of suites and problems: ``fate-gym describe``, ``validate`` and ``import``."""
