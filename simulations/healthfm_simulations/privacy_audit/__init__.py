"""Attacks on our own training: ``python -m healthfm_simulations.privacy_audit``."""
