"""HealthFM's library: data, model and maths of a federated multimodal health model.

Nothing here knows Flower, Hydra (one file excepted) or sockets; the layers are in pyproject.toml.
"""

import os

# Read once, when torch is loaded. By default a thread that has done its part of an operation spins
# for milliseconds until the others have too. Where anything else wants the processor, that made a
# step on two cores up to 18 times slower (484 ms for 27 ms); alone, spinning gained nothing.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
