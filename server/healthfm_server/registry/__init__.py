"""The models of runs: exported with a card, side by side, and which has which alias."""
