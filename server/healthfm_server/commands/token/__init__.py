"""``healthfm-server token``: who may ask the study's public port what."""
