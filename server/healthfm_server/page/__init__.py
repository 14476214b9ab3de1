"""The coordinator's page and the API under it, on loopback: a study as a person sees it."""
