"""`hsae`, also as `python -m hsae_dagster`: nothing is imported before Ctrl-C can be answered in a word."""

import sys


def main() -> None:
    """The command of this process; whoever interrupts it is told so, as click does once a command has begun."""
    try:
        from hsae_dagster.cli import main as hsae

        hsae(prog_name="hsae")
    except KeyboardInterrupt:
        sys.stderr.write("\nAborted!\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
