"""Experiments that repeat themselves: a plan in YAML, its runs, and the table in its README.

A folder of ``simulations/experiments`` holds ``experiment.yaml`` (`plan`), which names variants of
one configuration and what to tabulate, and a ``README.md`` whose figures are written between two
marker lines by the command that made them, never by hand.
"""
