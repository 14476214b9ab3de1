"""What runs at a site: ingestion, the site's policy, and its end of the federation."""
