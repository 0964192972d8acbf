"""Checks of the settings about test-list editing: which repositories, which forge, whose name commits bear."""

import re
from typing import TYPE_CHECKING

from core.config import ConfigError

if TYPE_CHECKING:
    from api.config import ApiSettings

_REPOSITORY = re.compile(
    r"(?:file://)?/[!-~]+"
    r"|https://[0-9A-Za-z][0-9A-Za-z.:-]*/[!-~]+"
    r"|ssh://(?:[0-9A-Za-z][0-9A-Za-z._-]*@)?[0-9A-Za-z][0-9A-Za-z.:-]*/[!-~]+"
    r"|[0-9A-Za-z][0-9A-Za-z._-]*@[0-9A-Za-z][0-9A-Za-z.-]*:[!-~]+"
)
_BRANCH = re.compile(r"[0-9A-Za-z][0-9A-Za-z._/-]{0,99}", re.ASCII)
_NOT_A_BRANCH = re.compile(r"\.\.|//|/\.|\.lock(/|\Z)|[./]\Z")
_API = re.compile(r"https?://[^\s/@?#]+/(?:[^\s?#]*[^\s?#/])?", re.ASCII)
_OWNER = re.compile(r"[0-9A-Za-z._-]{0,100}", re.ASCII)
_AUTHOR = re.compile(r"([^<>\x00-\x1f\x7f]{1,100}) <([!-;=?-~]{1,200})>")


def name_and_address(author: str) -> tuple[str, str]:
    """Take `Name <address>` apart. Raises ValueError when it is not of this form."""
    match = _AUTHOR.fullmatch(author)
    if match is None:
        raise ValueError("it is not of the form Name <address>")
    return match[1].strip(), match[2]


def check_test_lists(settings: "ApiSettings") -> None:
    """Raise ConfigError when a setting about test-list editing is wrong."""
    for name in ("test_lists_repository", "test_lists_push_repository"):
        value = getattr(settings, name)
        if value and not _REPOSITORY.fullmatch(value):
            raise ConfigError(
                f"{name} is no address of a git repository; give an absolute path or an address that begins with "
                "https://, ssh:// or file://, without a password in it: that goes into the file test_lists_forge_token."
            )
    if not settings.test_lists_repository:
        needless = [name for name in ("push_repository", "forge_api") if getattr(settings, f"test_lists_{name}")]
        if needless:
            raise ConfigError(
                f"test_lists_{needless[0]} is set, and test_lists_repository is not. Set that one as well."
            )
    if not _BRANCH.fullmatch(settings.test_lists_branch) or _NOT_A_BRANCH.search(settings.test_lists_branch):
        raise ConfigError("test_lists_branch is no name of a branch; for example main.")
    if settings.test_lists_forge_api and not _API.fullmatch(settings.test_lists_forge_api):
        raise ConfigError(
            "test_lists_forge_api is no address of a repository at a forge's API, without a slash at the end; for "
            "example https://api.github.com/repos/example/test-lists."
        )
    if not _OWNER.fullmatch(settings.test_lists_fork_owner):
        raise ConfigError("test_lists_fork_owner is no name of an account at a forge; for example example-bot.")
    try:
        name_and_address(settings.test_lists_author)
    except ValueError as error:
        raise ConfigError(
            f"test_lists_author: {error}; for example Test list editor <test-lists@example.org>."
        ) from error
