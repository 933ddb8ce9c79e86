"""From somebody's files to a proposed dataset.yaml."""
