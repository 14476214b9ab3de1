"""A deployment at the coordinator: SuperLink, gateway, run reconciler, and their supervisor."""
