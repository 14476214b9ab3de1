"""Differential privacy at the site: its own rules, each study's budget, and the ledger's report."""
