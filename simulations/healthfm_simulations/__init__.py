"""Federations on one machine: people with known truth, how they fall into sites, engines, arms."""

from healthfm_core.federation.environment import keep_quiet

keep_quiet()
