"""The command `devstack`, which `make run` and `make clean-run` call."""

import argparse
import sys
from collections.abc import Sequence

from core.db import DatabaseUnavailable
from devstack import config
from devstack.children import Watchdog
from devstack.errors import StackError, Stopping
from devstack.places import Places
from devstack.ports import require_free
from devstack.screen import Screen
from devstack.stack import Stack
from devstack.supervisor import Supervisor


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stack, or forget its data; return the exit status: 0, or 1 with a sentence on standard error."""
    options = _parser().parse_args(arguments)
    screen = Screen()
    supervisor = Supervisor(screen.say)
    supervisor.listen()
    try:
        settings = config.load()
        places = Places(settings.run_dir)
        if options.forget:
            return _forget(places, screen, supervisor)
        places.prepare()
        with places.lock(screen.say, supervisor.tick) as lock:
            require_free(settings.port)
            return _run(settings, screen, supervisor, lock)
    except (StackError, DatabaseUnavailable) as error:
        print(f"devstack: {error}", file=sys.stderr)
        return 1
    except Stopping:
        return 0


def _run(settings: config.StackSettings, screen: Screen, supervisor: Supervisor, lock: int) -> int:
    watchdog = Watchdog(lock)
    try:
        stack = Stack(settings, screen, supervisor, watchdog)
        try:
            stack.run()
        except Stopping:
            screen.say("Stopping.")
        except (StackError, DatabaseUnavailable):
            if not supervisor.asked_to_stop:  # else Ctrl-C also ended a command that was being waited for
                raise
            screen.say("Stopping.")
        finally:
            stack.stop()
    finally:
        watchdog.close()
    screen.say(
        f"Stopped. The data stays in {settings.run_dir}; `make run` goes on with it, `make clean-run` deletes it."
    )
    return 0


def _forget(places: Places, screen: Screen, supervisor: Supervisor) -> int:
    if not places.root.exists():
        screen.say(f"There is nothing to forget: {places.root} does not exist.")
        return 0
    with places.lock(screen.say, supervisor.tick):
        deleted = places.forget()
    screen.say(f"Deleted {', '.join(str(path) for path in deleted) or 'nothing'}.")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="devstack",
        description="Run the whole stack on this machine: PostgreSQL, API, fastpath, uploader and simulated probes.",
        epilog="Environment: PORT (8080), RUN_DIR (run), COUNT (240 documents into an empty database), "
        "SESSIONS (3 into an empty database), CORPUS "
        "(directory with measurements.jsonl.gz), TRICKLE (5 seconds between two later submissions, 0 for none).",
    )
    parser.add_argument("--forget", action="store_true", help="delete the data of RUN_DIR and end")
    return parser


if __name__ == "__main__":
    sys.exit(main())
