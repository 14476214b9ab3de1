"""The folder of one run: checkpoints, history, events, and what is read from them."""
