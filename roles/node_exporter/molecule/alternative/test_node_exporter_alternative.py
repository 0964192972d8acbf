"""What other variables change."""

import re
from collections.abc import Callable

from testinfra.host import Host


def test_only_the_named_units_are_exported_on_the_address_of_the_host(host: Host, fetch: Callable) -> None:
    address = host.check_output("hostname --all-ip-addresses").split()[0]
    page = fetch(host, "/metrics", address=address, port=9109, tls=False).text
    assert set(re.findall(r'node_systemd_unit_state\{name="([^"]+)"', page)) == {"cron.service", "ssh.service"}
