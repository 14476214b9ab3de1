"""What runs at a site: ingestion, the site's policy, and its end of the federation."""

from healthfm_core.federation.environment import keep_quiet

keep_quiet()
