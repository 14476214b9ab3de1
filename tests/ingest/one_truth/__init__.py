"""One truth, made of people who never lived, as OMOP CDM, as FHIR R4 and as MEDS."""
