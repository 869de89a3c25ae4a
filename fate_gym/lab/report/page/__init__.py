"""``report.html``: a single offline file with figures that respond to filters."""
