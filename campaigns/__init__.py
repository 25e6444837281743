"""Many trainings and tests as one: folds x seeds, as processes of our programs."""
