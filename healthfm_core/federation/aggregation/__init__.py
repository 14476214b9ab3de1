"""How the replies of a round become one step of the server, one file per algorithm."""
