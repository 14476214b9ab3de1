"""How the gradient of a local step comes about, and what is added to it."""
