"""Whether probes are where they say: counted and nothing else, and no reason to refuse a measurement."""

from api.client_address import client_address
from api.geolocation import UNKNOWN_ASN, UNKNOWN_CC
from api.metrics import PROBE_PLACE
from api.services import services


def compare_place(cc: str, asn: int) -> None:
    """Count whether the current request's client is in country `cc` and network `asn`, as its measurement says."""
    place = services().geolocation.locate(client_address())
    known_cc, known_asn = place.probe_cc != UNKNOWN_CC, place.probe_asn != UNKNOWN_ASN
    cc_differs = known_cc and place.probe_cc != cc.upper()
    asn_differs = known_asn and place.probe_asn != asn
    if cc_differs and asn_differs:
        result = "both_differ"
    elif cc_differs:
        result = "cc_differs"
    elif asn_differs:
        result = "asn_differs"
    else:
        result = "match" if known_cc or known_asn else "unknown"
    PROBE_PLACE.labels(result).inc()
