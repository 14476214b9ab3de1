"""``healthfm-server model``: list, compare and promote the models of a study's runs."""
