"""What the changes of one person make of the lists: pure functions of lists and changes.

Changes are kept relative to the lists of the repository, which move meanwhile. So of each it is worked out anew whether
it still applies, is in the lists already (then it is done), or is stale: what it changes is not there any more, or what
it brings is there in another form. The order of changes makes no difference, apart from that of added lines.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from api.testlist_entries import GLOBAL_LIST, ListEntry, duplicate_url
from api.typed_errors import typed_error

MOST_CHANGES = 500
"""Greatest number of changes that one account may have at a time."""

_RELOAD = "Load the list again, and change what is there now."


@dataclass(frozen=True, slots=True)
class Change:
    """One change to the list `cc`: of `old` to `new`. Without `old` it adds a line, without `new` it deletes one."""

    cc: str
    old: ListEntry | None
    new: ListEntry | None
    comment: str = ""
    base_commit: str = ""
    """The commit of the lists that it was made against."""

    @property
    def action(self) -> str:
        """`add`, `delete` or `edit`."""
        if self.old is None:
            return "add"
        return "delete" if self.new is None else "edit"

    @property
    def shown(self) -> ListEntry:
        """The entry that it is told by: the new one, or the one that it deletes."""
        entry = self.new or self.old
        assert entry is not None
        return entry

    @property
    def keeps_url(self) -> bool:
        """Whether it edits an entry whose URL stays."""
        return self.old is not None and self.new is not None and self.old.url == self.new.url

    @property
    def urls(self) -> set[str]:
        """The URLs that it is about: one or two."""
        return {entry.url for entry in (self.old, self.new) if entry is not None}


@dataclass(slots=True)
class Applied:
    """A list with changes, and what became of each of them."""

    entries: list[ListEntry] = field(default_factory=list)
    """The list as the person sees it."""
    replaced: dict[int, ListEntry | None] = field(default_factory=dict)
    """By position in the list of the repository: what is put there, None for nothing."""
    added: list[ListEntry] = field(default_factory=list)
    pending: list[Change] = field(default_factory=list)
    """Changes that apply."""
    stale: list[Change] = field(default_factory=list)
    """Changes that do not apply any more."""


Read = Callable[[str], Sequence[ListEntry]]
"""Returns the entries of a list of the repository, by its name; none for a list that there is not."""


def apply(read: Read, name: str, changes: Sequence[Change]) -> Applied:
    """Return list `name` with those of `changes` that are for it."""
    everywhere: set[str] = set()
    if name != GLOBAL_LIST:
        everywhere = {entry.url for entry in apply(read, GLOBAL_LIST, changes).entries}
    return _apply(read(name), [change for change in changes if change.cc == name], everywhere)


def _apply(base: Sequence[ListEntry], changes: Sequence[Change], everywhere: set[str]) -> Applied:
    applied = Applied()
    places: dict[ListEntry, list[int]] = {}
    for number in range(len(base) - 1, -1, -1):  # so that pop() gives the first
        places.setdefault(base[number], []).append(number)
    urls = {entry.url for entry in base}
    claimed = {
        number: places[change.old].pop()
        for number, change in enumerate(changes)
        if change.old is not None and places.get(change.old)
    }
    found: list[tuple[Change, int | None]] = []
    for number, change in enumerate(changes):
        # Only now it is known which entries stay, so that one who moves an entry away may add it again.
        is_done = bool(places.get(change.new)) if change.new else change.shown.url not in urls
        if number in claimed:
            found.append((change, claimed[number]))
        elif change.old is None and not is_done:
            found.append((change, None))
        elif not is_done:
            applied.stale.append(change)
    refused = _duplicates(base, found, everywhere)
    if refused:
        applied = _apply(base, [change for change in changes if change not in refused], everywhere)
        applied.stale += refused
        return applied
    for change, position in found:
        applied.pending.append(change)
        if position is not None:
            applied.replaced[position] = change.new
        elif change.new is not None:
            applied.added.append(change.new)
    kept = [applied.replaced.get(position, entry) for position, entry in enumerate(base)]
    applied.entries = [entry for entry in kept if entry is not None] + applied.added
    return applied


def _duplicates(
    base: Sequence[ListEntry], found: Sequence[tuple[Change, int | None]], everywhere: set[str]
) -> list[Change]:
    """Return the changes that would bring a URL a second time."""
    leaving = {position for _change, position in found if position is not None}
    taken = everywhere | {entry.url for position, entry in enumerate(base) if position not in leaving}
    taken |= {change.new.url for change, _position in found if change.new is not None and change.keeps_url}
    refused = []
    for change, _position in found:
        if change.new is None or change.keeps_url:
            continue
        if change.new.url in taken:
            refused.append(change)
        taken.add(change.new.url)
    return refused


def with_change(read: Read, changes: Sequence[Change], change: Change) -> list[Change]:
    """Return the changes of a person after one more, which is told in terms of the list as that person sees it.

    Changes that are done are left out, and stale ones about the same URL.

    Raises:
        ApiError: `err_no_proposed_changes`, `err_cannot_update_list` when its old entry is not in the list, and
            `err_duplicate_url`.
    """
    if change.old == change.new:
        raise typed_error("err_no_proposed_changes", "Send an old_entry and a new_entry that differ.")
    applied = apply(read, change.cc, changes)
    pending, stale = set(applied.pending), set(applied.stale)
    alive = [each for each in changes if each.cc != change.cc or each in pending or each in stale]
    if change.old is not None and change.old not in applied.entries:
        if change.new is None and any(each.shown == change.old for each in stale):
            return [each for each in alive if not (each in stale and each.shown == change.old)]
        raise typed_error("err_cannot_update_list", _RELOAD)
    _check_duplicate(read, changes, change, applied)
    kept = [each for each in alive if not (each in stale and each.urls & change.urls)]
    before = next((each for each in kept if each in pending and _leads_to(each, change)), None)
    origin = change.old if before is None else before.old
    merged = Change(change.cc, origin, change.new, change.comment, change.base_commit)
    if before is None:
        kept.append(merged)
    elif merged.old == merged.new:
        kept.remove(before)
    else:
        kept[kept.index(before)] = merged
    if len(kept) > max(MOST_CHANGES, len(changes)):
        raise typed_error("err_request_params", f"You have {MOST_CHANGES} changes. Submit them before you make more.")
    return kept


def _leads_to(earlier: Change, change: Change) -> bool:
    """Whether a change goes on from an earlier one of its list: changes its result, or adds again what it deleted."""
    if earlier.cc != change.cc:
        return False
    if change.old is not None:
        return earlier.new == change.old
    assert change.new is not None
    return earlier.new is None and earlier.old is not None and earlier.old.url == change.new.url


def _check_duplicate(read: Read, changes: Sequence[Change], change: Change, applied: Applied) -> None:
    if change.new is None or change.keeps_url:
        return
    url = change.new.url
    if any(entry.url == url for entry in applied.entries):
        raise duplicate_url(url, change.cc)
    if change.cc != GLOBAL_LIST and any(entry.url == url for entry in apply(read, GLOBAL_LIST, changes).entries):
        raise duplicate_url(url, GLOBAL_LIST)
