"""``healthfm-server token``: make, list and revoke the tokens that commands show to the gateway."""
