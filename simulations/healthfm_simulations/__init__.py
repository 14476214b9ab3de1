"""Federations on one machine: simulated people, partitions into sites, engines and arms."""

from healthfm_core.federation.environment import keep_quiet

keep_quiet()
