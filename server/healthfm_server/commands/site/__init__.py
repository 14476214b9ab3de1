"""``healthfm-server site``: who may take part."""
