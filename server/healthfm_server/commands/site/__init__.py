"""``healthfm-server site``: admit a site, sign its keys, list or revoke sites."""
