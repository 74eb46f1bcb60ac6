"""What is chained with a rule or wrapped around it: clipping, groups, averages of parameters."""
