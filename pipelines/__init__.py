"""One launcher for each entry point, which `MLproject` runs."""
