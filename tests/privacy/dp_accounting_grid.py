"""ε by Google's dp-accounting over a grid, for `test_accounting` to compare with.

dp-accounting 0.6.0 wants attrs below 24 and this project pins a later one, so the two do not
install together. In an environment of its own:

    python -m venv ../other && ../other/bin/pip install dp-accounting==0.6.0
    ../other/bin/python tests/privacy/dp_accounting_grid.py > tests/privacy/dp_accounting.json
"""

import itertools
import json
import sys
from importlib.metadata import version

NOISE = (0.6, 1.0, 2.0, 8.0)
RATES = (0.005, 0.05, 0.3, 1.0)
STEPS = (20, 500)
DELTAS = (1e-5, 1e-7)
SEVERAL = (
    ((1.0, 0.01, 300), (2.0, 0.1, 50)),
    ((0.8, 0.02, 100), (1.2, 0.02, 400), (4.0, 0.5, 60)),
)
"""Noise multiplier, sampling rate and steps of studies that come one after the other."""


def cases():
    """Yield histories and deltas: every mechanism alone, then several together."""
    for noise, rate, steps, delta in itertools.product(NOISE, RATES, STEPS, DELTAS):
        yield ((noise, rate, steps),), delta
    yield from itertools.product(SEVERAL, DELTAS)


def main() -> None:
    """Write the grid to standard output."""
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
    from dp_accounting.pld import PLDAccountant
    from dp_accounting.rdp import RdpAccountant

    rows = []
    for history, delta in cases():
        pld, rdp = PLDAccountant(value_discretization_interval=1e-4), RdpAccountant()
        for noise, rate, steps in history:
            event = PoissonSampledDpEvent(rate, GaussianDpEvent(noise))
            for accountant in (pld, rdp):
                accountant.compose(SelfComposedDpEvent(event, steps))
        found = {"pld": pld.get_epsilon(delta), "rdp": rdp.get_epsilon(delta)}
        rows.append({"history": history, "delta": delta, **found})
    told = {"dp-accounting": version("dp-accounting"), "rows": rows}
    sys.stdout.write(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
