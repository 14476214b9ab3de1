"""A page on loopback: who gets in, what protects it, how it is served and kept up to date.

The coordinator's page and the site's are made of it. What they show and change is their own.
"""
