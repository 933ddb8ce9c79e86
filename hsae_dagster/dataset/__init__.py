"""What a dataset declares (dataset.yaml) and how its files become rows. Knows no other room but errors and keys."""
