"""Patient-level differential privacy and secure aggregation live here, below the models.

Empty in this version: no run of it trains with differential privacy. The model is laid out for it,
and tests/models checks each parameter's gradient per subject.
"""
