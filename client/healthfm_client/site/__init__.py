"""The site itself: its folder, its policy, and what its administrator decided."""
