"""The models of a study's runs: side by side, and which of them has which alias."""
