"""What self-signed certificates promise."""

from testinfra.host import Host

CHAIN = "/etc/ssl/services/api.internal/fullchain.pem"


def serial(host: Host) -> str:
    """Return the serial number of the certificate."""
    return host.check_output(f"openssl x509 -in {CHAIN} -noout -serial")


def test_self_signed_certificate_has_all_names(host: Host) -> None:
    said = host.check_output(f"openssl x509 -in {CHAIN} -noout -ext subjectAltName")
    assert "DNS:api.internal, DNS:www.internal" in said


def test_self_signed_certificate_is_renewed_before_its_end_and_not_sooner(host: Host) -> None:
    before = serial(host)
    host.check_output("systemctl start tls-renew.service")
    assert serial(host) == before
    host.check_output(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 5 -subj /CN=api.internal"
        " -addext subjectAltName=DNS:api.internal,DNS:www.internal -keyout /run/k -out /run/c 2>/dev/null"
        " && tls-install api.internal /run/k /run/c && rm /run/k /run/c"
    )
    nearly_over = serial(host)
    host.check_output("systemctl start tls-renew.service")
    assert serial(host) not in (before, nearly_over)
    assert host.run(f"openssl x509 -in {CHAIN} -noout -checkend {300 * 86400}").rc == 0


def test_no_certificate_authority_is_asked(host: Host) -> None:
    assert not host.package("dehydrated").is_installed
