"""What runs at the coordinator: the round loop on Flower's Grid, and the run folder."""

from healthfm_core.federation.environment import keep_quiet

keep_quiet()
