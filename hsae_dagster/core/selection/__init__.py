"""Which neurons are taken."""
