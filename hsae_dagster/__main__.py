"""`hsae`, also as `python -m hsae_dagster`: nothing is imported before Ctrl-C can be answered in a word."""

import logging
import os
import signal
import sys
import threading


def main() -> None:
    """The command of this process; whoever interrupts it is told so, as click does once a command has begun."""
    try:
        heed_interrupts()
        from hsae_dagster.cli import main as hsae

        hsae(prog_name="hsae")
    except KeyboardInterrupt:
        sys.stderr.write("\nAborted!\n")
        sys.exit(1)


def heed_interrupts() -> None:
    """Ctrl-C always ends the command, and never prints a traceback.

    Python drops what is raised while an object is thrown away, so that the command would go on: the signal is sent
    again. SQLAlchemy logs what is raised while it closes a connection: that record is dropped.
    """
    told = sys.unraisablehook

    def tell(unraisable: "sys.UnraisableHookArgs") -> None:
        if not _is_interrupt(unraisable.exc_type):
            told(unraisable)
        elif not sys.is_finalizing():
            again = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
            again.daemon = True
            again.start()

    sys.unraisablehook = tell
    if logging.lastResort is not None:
        logging.lastResort.addFilter(lambda record: not (record.exc_info and _is_interrupt(record.exc_info[0])))


def _is_interrupt(raised: type[BaseException] | None) -> bool:
    """Whether it is Ctrl-C, by Python's name or by Dagster's, which is not imported yet."""
    return raised is not None and raised.__name__ in ("KeyboardInterrupt", "DagsterExecutionInterruptedError")


if __name__ == "__main__":
    main()
