"""What certificates from an authority promise; the authority is a real ACME server on the host itself."""

from testinfra.host import Host

CHAIN = "/etc/ssl/services/www.example.org/fullchain.pem"


def served(host: Host) -> str:
    """Return the serial number of the certificate that the web server shows."""
    return host.check_output(
        "openssl s_client -connect 127.0.0.1:443 -servername www.example.org </dev/null 2>/dev/null"
        " | openssl x509 -noout -serial"
    )


def test_certificate_comes_from_the_authority_with_all_names(host: Host) -> None:
    said = host.check_output(f"openssl x509 -in {CHAIN} -noout -issuer -ext subjectAltName")
    assert "Pebble" in said
    assert "DNS:www.example.org" in said
    assert "DNS:api.example.org" in said


def test_name_that_is_not_public_is_self_signed(host: Host) -> None:
    said = host.check_output("openssl x509 -in /etc/ssl/services/inside.internal/fullchain.pem -noout -issuer")
    assert said == "issuer=CN = inside.internal"


def test_web_server_shows_it(host: Host) -> None:
    assert served(host) == host.check_output(f"openssl x509 -in {CHAIN} -noout -serial")


def test_renewed_certificate_is_in_force_at_once(host: Host) -> None:
    before = served(host)
    host.check_output("rm -r /var/lib/dehydrated/certs/www.example.org")
    host.check_output("systemctl start tls-renew.service")
    assert served(host) != before


def test_refusal_of_the_authority_is_an_error_and_keeps_the_old_certificate(host: Host) -> None:
    before = served(host)
    host.check_output(
        "cp /etc/dehydrated/domains.txt /run/domains.txt; echo not-ours.example.org >> /etc/dehydrated/domains.txt"
    )
    tried = host.run("tls-renew")
    host.check_output("mv /run/domains.txt /etc/dehydrated/domains.txt")
    assert tried.rc == 1
    assert "the certificate authority refused: " in tried.stderr
    assert served(host) == before
    assert host.run("tls-renew").rc == 0
