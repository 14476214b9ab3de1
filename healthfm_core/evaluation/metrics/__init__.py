"""Metrics of predictions, and their 95 % intervals by bootstrap over subjects."""
