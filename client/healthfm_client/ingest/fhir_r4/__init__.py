"""FHIR R4's resources: their files, the parts of them that are read, and what they are called."""
