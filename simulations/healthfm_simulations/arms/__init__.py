"""The arms of a simulation: the ways to train that it compares, and the baselines beside them."""
