"""HealthFM's library: data, model and maths of a federated multimodal health model.

Nothing here knows Flower, Hydra (one file excepted) or sockets; the layers are in pyproject.toml.
"""

import os

# Read once, when torch is loaded. By default a thread that has done its part of an operation spins
# for milliseconds until the others have too: two processes of two threads each on two cores then
# take 4,300 ms for a step of the tiny model that takes 69 alone. Spinning 5,000 times it is 293 and
# 69; 1,000 times, 134 and 186, and without the compiled attention twice as long for larger models.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")
