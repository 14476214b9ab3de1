"""A network in the simulation: lines, computers and clocks of sites, in virtual time.

`site_connections` draws each site's values, or reads them from a trace; `line_sharing` moves bytes
over lines that share the coordinator's; `order_course` says what becomes of one order;
`network_grid` is the engine's grid over them, which runs the real apps and lets no time pass but
virtual time.
"""
