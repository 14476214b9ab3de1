"""All that HealthFM uses of Flower beyond what Flower publishes; written for flwr 1.41.

Flower publishes `flwr.app`, `flwr.clientapp` and `flwr.serverapp`, and everybody here may import
those. What the rest of HealthFM needs besides is taken from this package, one module for each
process: so a new release of Flower is read here and nowhere else. Each fact that is relied on has a
test in tests/flower/test_flower_facts.py, which is run against a new release before the pin moves.
"""
