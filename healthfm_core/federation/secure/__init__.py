"""What a site sends and what the coordinator reads where only sums of sites are opened."""
