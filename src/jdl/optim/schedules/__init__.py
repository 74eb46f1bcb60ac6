"""Values that change with the step, or with what the validation says."""
