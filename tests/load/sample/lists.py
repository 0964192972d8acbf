"""Writes the test lists and the names of networks of a sample's world."""

from psycopg import Connection
from psycopg.rows import TupleRow
from tests.load.sample.world import World


def write(connection: Connection[TupleRow], world: World) -> None:
    """Add what tables citizenlab and asnmeta do not have yet."""
    connection.execute(
        "CREATE TEMPORARY TABLE sample_lists (domain text, url text, cc text, category_code text) ON COMMIT DROP"
    )
    with connection.cursor().copy("COPY sample_lists FROM STDIN") as copy:
        for entries in world.lists.values():
            for entry in entries:
                copy.write_row((entry.domain, entry.url, entry.country, entry.category))
    connection.execute(
        "INSERT INTO citizenlab (domain, url, cc, category_code) SELECT * FROM sample_lists ON CONFLICT DO NOTHING"
    )
    connection.execute(
        """CREATE TEMPORARY TABLE sample_names (asn bigint, changed date, org_name text, cc text, aut_name text)
           ON COMMIT DROP"""
    )
    with connection.cursor().copy("COPY sample_names FROM STDIN") as copy:
        for name in world.names:
            copy.write_row((name.asn, name.changed, name.name, name.country, name.short_name))
    connection.execute(
        """INSERT INTO asnmeta (asn, changed, org_name, cc, aut_name, source)
           SELECT *, 'sample' FROM sample_names ON CONFLICT DO NOTHING"""
    )
