"""Regional coordinators: coordinators of their own sites that are sites of a national one."""
