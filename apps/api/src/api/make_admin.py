"""`ooni-api make-admin`: make the account of an e-mail address an admin, or an ordinary user again.

The first admin of a deployment is made with it, since only admins can make admins over HTTP. It needs the service's
configuration: the key that addresses are hashed with, and the database. Root becomes the service's user first, who may
read the one and is known to the other; a key that is not there yet is made as the service would make it.

    sudo ooni-api make-admin -          # asks for the address, which then is in no log of commands
"""

import argparse
import codecs
import os
import pwd
import sys
from pathlib import Path

import psycopg
from psycopg.types.json import Jsonb

from api import APP
from api.account_ids import KEY_FILE, AccountIds, normal_address, read_key
from api.config import ApiSettings, exported_path, load
from api.key_file import create_key_file
from api.probe_config_cli import EXIT_CONFIG
from api.roles import ADMIN, USER
from core.config import ConfigError
from core.db import DatabaseUnavailable, connect

EXIT_NOT_AN_ADMIN = 1
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 69
"""EX_UNAVAILABLE of sysexits.h."""

ACTOR = "command"
"""Who is in the audit log as account and role for what is done on a host."""

EXIT_STATUS = """\
exit status: 0 done, or nothing to do; 1 there was no such admin to remove; 2 this is no e-mail address;
69 the database cannot be reached or refuses; 78 the configuration or the key of accounts cannot be used.
What was done is in the audit log, without the address."""

_STATEMENT_TIMEOUT_MS = 10_000
_ROLE = "SELECT role FROM accounts WHERE account_id = %s FOR UPDATE"
_SET_ROLE = """INSERT INTO accounts (account_id, role) VALUES (%s, %s)
    ON CONFLICT (account_id) DO UPDATE SET role = excluded.role"""
_RECORD = """INSERT INTO audit_log (account_id, role, via, action, subject, detail)
    VALUES (%(actor)s, %(actor)s, 'command', 'account.set_role', %(account_id)s, %(detail)s)"""
_ADMINS = "SELECT count(*) FROM accounts WHERE role = %s"


class Failed(Exception):
    """Nothing was changed: a sentence for people, and the exit status."""

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to those of `ooni-api`."""
    parser = commands.add_parser(
        "make-admin",
        help="make the account of an e-mail address an admin, or an ordinary user again",
        description="Make the account of an e-mail address an admin. The address is stored nowhere.",
        epilog=EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("address", metavar="EMAIL", help="address that the person logs in with; - reads it from a line")
    parser.add_argument("--remove", action="store_true", help="make the account an ordinary user's again")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Do it, print what was done and what to do next; return the exit status."""
    try:
        try:
            settings = load(options.config or exported_path())
        except ConfigError as error:
            raise Failed(str(error), EXIT_CONFIG) from error
        address = _address(options.address)
        become_service(Path(settings.state_directory))
        print(_set_role(settings, _account_id(settings, address), USER if options.remove else ADMIN))
    except Failed as error:
        print(f"ooni-api: {error}", file=sys.stderr)
        return error.status
    return 0


def become_service(state: Path) -> None:
    """Become the user that the service's directory belongs to, if this is root and somebody else owns it.

    Raises:
        Failed: the directory is not there.
    """
    if os.geteuid() != 0:
        return
    try:
        owner = pwd.getpwuid(state.stat().st_uid)
    except (OSError, KeyError) as error:
        raise Failed(
            f"{state} is not there, or its owner has no account on this host. Start the service once: systemctl start "
            "ooni-api. Or name the service's configuration with --config.",
            EXIT_CONFIG,
        ) from error
    if owner.pw_uid != 0:
        codecs.lookup("ascii")  # a module, which has to be loaded while Python may be read: it may lie in root's home
        os.initgroups(owner.pw_name, owner.pw_gid)
        os.setgid(owner.pw_gid)
        os.setuid(owner.pw_uid)
        os.environ["HOME"] = owner.pw_dir  # where libpq looks for files that it has to be able to read


def _address(given: str) -> str:
    if given == "-":
        if sys.stdin.isatty():
            print("E-mail address: ", end="", file=sys.stderr, flush=True)
        given = sys.stdin.readline()
    address = normal_address(given)
    if address is None:
        raise Failed(
            "This is no e-mail address that can log in: letters, digits and _.+- before the @, a domain with a dot "
            "after it. Give it as the person writes it when logging in.",
            EXIT_USAGE,
        )
    return address


def _account_id(settings: ApiSettings, address: str) -> str:
    path = Path(settings.account_id_key or Path(settings.state_directory) / KEY_FILE)
    try:
        if not settings.account_id_key and not path.exists():
            _create_key(path)
        read_key(path)
    except ValueError as error:
        raise Failed(f"{path} cannot be used: {error}", EXIT_CONFIG) from error
    except OSError as error:
        raise Failed(
            f"The key of accounts, {path}, cannot be had: {error.strerror}. Run this as root or as the service's user, "
            "on a host of the API and with its configuration.",
            EXIT_CONFIG,
        ) from error
    return AccountIds(path, create=False).of(address)


def _create_key(path: Path) -> None:
    """Make the key of this host. Root, in a directory of root's own, does not: the service could not read it."""
    if os.geteuid() == 0:
        raise Failed(
            f"{path} does not exist yet, and {path.parent} belongs to root, not to the service. Start the service, ask "
            "it for a login link once, which makes the key, and run this again.",
            EXIT_CONFIG,
        )
    create_key_file(path)


def _set_role(settings: ApiSettings, account_id: str, role: str) -> str:
    """Set the role, and return what to tell. Raises Failed."""
    try:
        with connect(
            settings.db_uri, statement_timeout_ms=_STATEMENT_TIMEOUT_MS, application_name=f"{APP}-make-admin"
        ) as connection:
            row = connection.execute(_ROLE, [account_id]).fetchone()
            before = None if row is None else row[0]
            if (before or USER) == role:
                if role == USER:
                    raise Failed(
                        f"Account {account_id} is no admin, so nothing was changed. Is the address right?",
                        EXIT_NOT_AN_ADMIN,
                    )
                return f"ooni-api: account {account_id} is an admin already; nothing was changed."
            connection.execute(_SET_ROLE, [account_id, role])
            detail = Jsonb({"role": role, "before": before})
            connection.execute(_RECORD, {"actor": ACTOR, "account_id": account_id, "detail": detail})
            counted = connection.execute(_ADMINS, [ADMIN]).fetchone()
            assert counted is not None
    except DatabaseUnavailable as error:
        raise Failed(f"{error} Nothing was changed.", EXIT_UNAVAILABLE) from error
    except psycopg.Error as error:
        raise Failed(_refusal(error), EXIT_UNAVAILABLE) from error
    return _told(account_id, role, counted[0])


def _told(account_id: str, role: str, admins: int) -> str:
    if role == USER:
        left = f"{admins} left" if admins else "none is left: make another one"
        return (
            f"ooni-api: account {account_id} is an ordinary user's now, of sessions that run as well; admins: {left}.\n"
            "If somebody else may have its sessions or tokens, end them: POST /api/v1/set_session_expunge."
        )
    return (
        f"ooni-api: account {account_id} is an admin now, in sessions that run as well; admins: {admins}.\n"
        "Next: log in with this address; GET /api/_/account_metadata then says that the role is admin."
    )


def _refusal(error: psycopg.Error) -> str:
    if isinstance(error, psycopg.errors.UndefinedTable):
        return "The database has no table of accounts yet. Run database_upgrade_schema, then this again."
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return (
            "The service's database role may not write accounts. Run ./play deploy-database.yml, which says who may, "
            "then this again."
        )
    return f"The database refused, and nothing was changed: {type(error).__name__}. Try again; look into its log."
