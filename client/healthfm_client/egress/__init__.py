"""What leaves the site: a filter of what a reply may carry, and a log of every reply."""
