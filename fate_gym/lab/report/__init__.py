"""The report of a sweep: statistics, tables, figures and the HTML page, from result files alone."""
