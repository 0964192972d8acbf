"""Makes databases of geolocation in the given directory, in which 198.51.100.0/24 is network 64500 in Italy."""

import sys
from pathlib import Path

from mmdb_writer import MMDBWriter
from netaddr import IPSet

RECORDS = {
    "country.mmdb": {"country": {"iso_code": "IT"}},
    "asn.mmdb": {"autonomous_system_number": 64500, "autonomous_system_organization": "Example"},
}

for name, record in RECORDS.items():
    writer = MMDBWriter(6, ipv4_compatible=True)
    writer.insert_network(IPSet(["198.51.100.0/24"]), record)
    writer.to_db_file(str(Path(sys.argv[1]) / name))
