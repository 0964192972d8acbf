"""Scored files that came back to the spool although their measurement was archived, or taken down.

They come with a spool that was restored from a backup, after a power cut that forgot a deletion, or because the plan of
a batch was damaged after its commit. Packed again they would lie in the store twice, where no row points to the second
copy; or a takedown would be undone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from core.archive import ArchiveError, read_body, read_line
from core.envelope import DocumentError, inner_document
from core.objectstore import ObjectStore, StoreError, StoreUnavailable
from core.spool import Spool, TornFile
from uploader.queries import Manifest, Place


@dataclass(slots=True)
class Sorted:
    """What is to be done with some files of the spool."""

    fresh: list[str] = field(default_factory=list)
    """To be archived, in the order given."""

    copies: list[str] = field(default_factory=list)
    """To be deleted: the store just gave back the same body."""

    kept: dict[str, str] = field(default_factory=dict)
    """To be left where they are, each with the reason as a sentence."""


def sort_out(uids: Sequence[str], spool: Spool, store: ObjectStore, manifest: Manifest) -> Sorted:
    """Tell which measurements of the spool are to be archived, changing nothing.

    Raises:
        StoreUnavailable, DatabaseUnavailable, psycopg.Error, OSError: that cannot be told now.
    """
    known = {place.measurement_uid: place for place in manifest.places(uids)}
    taken_down = manifest.taken_down(uids)
    result = Sorted()
    for uid in uids:
        if uid in taken_down:
            result.kept[uid] = "It was taken down. Run `uploader takedown` for it on this host."
        elif uid not in known:
            result.fresh.append(uid)
        else:
            try:
                record = spool.read(uid)
                if record is not None and has_body(store, known[uid], record.body):
                    result.copies.append(uid)
                elif record is not None:
                    result.kept[uid] = f"Its row points to another body in {known[uid].s3path}."
            except TornFile:
                result.fresh.append(uid)  # packing sets it aside
            except StoreUnavailable:
                raise
            except (ArchiveError, DocumentError, StoreError) as error:
                result.kept[uid] = f"Its archived body cannot be compared: {error}"
    return result


def has_body(store: ObjectStore, place: Place, body: bytes) -> bool:
    """Read what lies at a place of the store, and return whether it is this body.

    Raises:
        StoreError, ArchiveError: it cannot be read.
        DocumentError: the place is that of a document, and the body holds none.
    """
    if place.raw_s3path and place.raw_offset is not None and place.raw_length is not None:
        packed = store.get_range(place.raw_s3path, place.raw_offset, place.raw_length)
        return read_body(packed, place.measurement_uid) == body
    if place.member_offset is None or place.member_length is None:
        return False
    packed = store.get_range(place.s3path, place.member_offset, place.member_length)
    return read_line(packed) == inner_document(body)
