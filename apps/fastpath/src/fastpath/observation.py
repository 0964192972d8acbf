"""What the table `obs_openvpn` says beyond the row of the measurement."""

import msgspec


class Observation(msgspec.Struct, frozen=True):
    """One VPN connection attempt; every text can be stored. The other columns are those of the measurement's row."""

    anomaly: bool
    bootstrap_time: float
    failure: str
    last_handshake_transaction_id: int
    minivpn_version: str
    obfs4_version: str
    obfuscation: str
    platform: str
    probe_network_name: str
    provider: str
    remote: str
    resolver_asn: int
    resolver_ip: str
    resolver_network_name: str
    success: bool
    success_handshake: bool
    success_icmp: bool
    success_urlgrab: bool
    transport: str
    confirmed: bool = False
