"""The site's page: what its people see and decide in a browser on the site's own machine."""
