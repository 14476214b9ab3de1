"""Attacks on our own training, with and without noise: ``python -m healthfm_simulations.audit``."""
