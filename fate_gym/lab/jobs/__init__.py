"""One job: a policy on a suite, from its configuration to its result files."""
