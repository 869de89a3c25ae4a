"""What a suite or a problem holds: ``fate-gym describe``, ``validate`` and ``import``."""
