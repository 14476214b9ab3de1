"""A running deployment at the coordinator: SuperLink, front, steward, and their supervisor."""
