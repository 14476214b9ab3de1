"""Data quality as users of OHDSI's Data Quality Dashboard know it, over a store.

Checks have the dashboard's names (plausibleValueLow, measurePersonCompleteness, …) and stand in
Kahn's three categories: conformance, completeness, plausibility (Kahn et al., eGEMs 2016).
"""
