"""How the round loop's orders reach the sites and their replies come back: clear or secure."""
