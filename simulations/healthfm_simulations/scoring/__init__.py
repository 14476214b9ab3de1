"""From trained arms to numbers: predictions, metrics, sites one by one, means over seeds."""
