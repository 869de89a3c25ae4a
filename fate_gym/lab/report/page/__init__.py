"""``report.html``: one file that works without a network, with figures that answer to filters."""
