"""Run links in the forms that the two generations of routes, and probes, get them in.

A test of a link may say nothing about most things; newer routes say it all. Which flags there are is a story of names:
people set `is_background_run_enabled_default`, probes read `is_background_run_enabled`, and so does whoever reads a
descriptor of the older routes. Whoever reads flags gets them under the name that is read there.

E-mail addresses are in no table. The author that newer routes show is the account's own address to itself, which its
session holds, and to everybody else an empty text. Older routes show the text that the author gave, unless it was an
address.
"""

from datetime import datetime
from typing import Any

from api.run_link_fields import FLAGS, Content
from api.run_link_store import Link
from api.signed_in import Account


def nettest_v2(nettest: Content) -> Content:
    """Return a test with everything that can be said about it."""
    found: Content = {
        "test_name": nettest["test_name"],
        "inputs": nettest.get("inputs"),
        "inputs_extra": nettest.get("inputs_extra"),
        "options": nettest.get("options", {}),
        "targets_name": nettest.get("targets_name"),
    }
    if "backend_options" in nettest:
        found["backend_options"] = nettest["backend_options"]
    for flag in FLAGS:
        default = f"{flag}_default"
        found[default] = nettest.get(default, nettest.get(flag, True))
    return found


def nettest_for_probe(nettest: Content) -> Content:
    """Return the same, with the flags under the names that probes read as well."""
    found = nettest_v2(nettest)
    return found | {flag: found[f"{flag}_default"] for flag in FLAGS}


def nettest_v1(nettest: Content) -> Content:
    """Return a test as it was given, and with the flags under the names that are read here."""
    return {flag: nettest[f"{flag}_default"] for flag in FLAGS if f"{flag}_default" in nettest} | nettest


def same_nettests(some: Content, others: Content) -> bool:
    """Return whether two links run the same."""
    return [nettest_v2(each) for each in some["nettests"]] == [nettest_v2(each) for each in others["nettests"]]


def is_mine(link: Link, account: Account | None) -> bool:
    """Return whether the account made the link."""
    return account is not None and account.account_id == link.creator


def author(link: Link, account: Account | None) -> str:
    """Return the author that is shown to this account, None for anybody."""
    kept = str(link.content.get("author", ""))
    return kept or (account.email_address if account is not None and is_mine(link, account) else "")


def link_v2(link: Link, account: Account | None) -> dict[str, Any]:
    """Return a link of the newer routes."""
    content = link.content
    return {
        "oonirun_link_id": str(link.link_id),
        "name": content["name"],
        "name_intl": content.get("name_intl", {}),
        "short_description": content.get("short_description", ""),
        "short_description_intl": content.get("short_description_intl", {}),
        "description": content.get("description", ""),
        "description_intl": content.get("description_intl", {}),
        "author": author(link, account),
        "icon": content["icon"],
        "color": content.get("color"),
        "nettests": [nettest_v2(each) for each in content["nettests"]],
        "date_created": time_v2(link.created_at),
        "date_updated": time_v2(link.edited_at),
        "expiration_date": time_v2(link.expires_at),
        "is_expired": link.expired,
        "is_mine": is_mine(link, account),
        "revision": str(link.revision),
    }


def descriptor_v1(link: Link, account: Account | None) -> dict[str, Any]:
    """Return the descriptor of the older routes: the members that were given."""
    nettests = [nettest_v1(each) for each in link.content["nettests"]]
    return {**link.content, "author": author(link, account), "nettests": nettests}


def row_v1(link: Link, account: Account | None) -> dict[str, Any]:
    """Return a link in the list of the older routes; `link` need not have its tests."""
    return {
        "archived": link.expired,
        "author": author(link, account),
        "descriptor_creation_time": link.revised_at,
        "icon": link.content["icon"],
        "mine": is_mine(link, account),
        "name": link.content["name"],
        "ooni_run_link_id": link.link_id,
        "short_description": link.content.get("short_description") or "",
        "translation_creation_time": link.edited_at,
    }


def time_v2(moment: datetime) -> str:
    """Return a moment as the newer routes write it, always with microseconds."""
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z"
