"""What leaves this repository for a site: wheel, bundle, signatures, licences, container files."""
