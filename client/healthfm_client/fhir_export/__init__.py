"""A FHIR server's Bulk Data export, by SMART Backend Services, into a private folder."""
