"""`python -m hsae_dagster.cli`, where the `hsae` script is not on the path."""

from hsae_dagster.cli import main

main(prog_name="hsae")
