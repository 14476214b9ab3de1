"""The report of a federation of real sites: what its coordinator may say of it."""
