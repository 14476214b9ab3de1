"""A site's own store once it is written: described for people at the site, and given labels."""
