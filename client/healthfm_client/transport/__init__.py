"""How a site's reply travels: secure aggregation's keys, shares and masks at the site."""
