"""What test-list editing works with, made of the settings: the repository of the lists, where changes are proposed."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from api.config import ApiSettings
from api.errors import ApiError
from api.forge import BranchesAlone, Forge, RestForge
from api.testlist_repository import Author, ListRepository, Lists, RepositoryUnavailable
from api.testlist_settings import name_and_address

AT_ONCE = 2
"""Submissions and withdrawals of one worker at the same time."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ListEditing:
    """Test-list editing of one worker."""

    repository: ListRepository
    forge: Forge
    at_work: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(AT_ONCE))
    """Places for work that goes over the network."""

    def lists(self) -> Lists:
        """Return the lists as they are in the clone of this host. Raises ApiError 503."""
        with repository_errors():
            return self.repository.lists()


def build(settings: ApiSettings) -> ListEditing | None:
    """Return what the settings say; None when test lists cannot be edited here. Nothing is fetched yet."""
    if not settings.test_lists_repository:
        return None
    token_file = Path(settings.test_lists_forge_token) if settings.test_lists_forge_token else None
    repository = ListRepository(
        Path(settings.state_directory),
        origin=settings.test_lists_repository,
        branch=settings.test_lists_branch,
        push=settings.test_lists_push_repository or settings.test_lists_repository,
        author=Author(*name_and_address(settings.test_lists_author)),
        token_file=token_file,
    )
    forge: Forge = BranchesAlone(repository)
    if settings.test_lists_forge_api:
        forge = RestForge(
            settings.test_lists_forge_api,
            token_file=token_file,
            base=settings.test_lists_branch,
            fork_owner=settings.test_lists_fork_owner,
        )
    return ListEditing(repository, forge)


@contextmanager
def repository_errors() -> Iterator[None]:
    """Turn what is wrong with the repository into ApiError 503."""
    try:
        yield
    except RepositoryUnavailable as error:
        log.error("test lists not available", error=str(error))
        text = "The test lists cannot be read now. Nothing was changed; try again in a minute."
        raise ApiError(503, text, headers={"Retry-After": "60"}) from error
