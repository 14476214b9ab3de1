"""What ``doctor`` checks: this machine, the site's own files and data, and the connection."""
