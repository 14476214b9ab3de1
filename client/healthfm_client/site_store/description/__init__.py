"""What a store holds, for people at the site: facts, small counts withheld, and their page."""
