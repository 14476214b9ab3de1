"""Keys, certificates, enrolment and signed contracts: standard formats, and no transport.

Ten years of a P-384 root certify the server, each site's TLS key and the study's ed25519 signing
key, so that a site's administrator compares one fingerprint and trusts the rest by it.
"""
