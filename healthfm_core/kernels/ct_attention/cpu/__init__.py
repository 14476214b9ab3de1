"""The attention on processors: compiled where a compiler was at hand, else tiles in PyTorch."""
