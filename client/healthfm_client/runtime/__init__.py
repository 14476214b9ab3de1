"""The site's two processes: Flower's node and worker, their supervisor, their certificate."""
