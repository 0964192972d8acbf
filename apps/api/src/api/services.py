"""The long-lived parts of one worker process, built once by the application factory."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import structlog
from flask import current_app

from api import APP, account_ids, sessions, signing, testlist_editing
from api.account_ids import AccountIds
from api.clock import ReceiptClock
from api.config import ApiSettings
from api.geolocation import Geolocation
from api.handover import Handover
from api.intake import Intake
from api.kept_statistics import KeptStatistics
from api.key_file import KeyFile
from api.list_queries import MeasurementList
from api.login_redirects import RedirectHosts
from api.mail import LogTransport, SmtpTransport, Transport
from api.metrics import BODY_SOURCE, PEER_READS
from api.probe_config import COPIES, ProbeConfig
from api.proxies import TrustedProxies
from api.queries import MeasurementQueries
from api.read_slots import ReadSlots
from api.reading import Reader
from api.repeats import PATIENCE_S, STATEMENT_TIMEOUT_MS, RepeatsElsewhere
from api.request_body import BodyLimits
from api.sessions import SessionTokens
from api.signing import ProbeTokens
from api.statistics_runtimes import Runtimes
from api.testlist_editing import ListEditing
from api.url_overview import UrlOverview
from api.url_queries import UrlQueries
from api.url_selection import UrlSelection
from core.archive import ArchiveError
from core.bodies import BodyReader
from core.body_cache import BodyCache
from core.db import Pool, open_pool
from core.objectstore import StoreError, open_store
from core.peers import PeerSpools
from core.received import BackgroundRestore, Received
from core.spool import Spool
from core.spool_received import received_in

EXTENSION = APP

log = structlog.get_logger(__name__)


class BodyUnreadable(Exception):
    """The object store has the body but does not give it, or gives it damaged."""


@dataclass(frozen=True, slots=True)
class Services:
    """What the routes work with."""

    settings: ApiSettings
    pool: Pool
    queries: MeasurementQueries
    measurement_list: MeasurementList
    reader: Reader
    kept_statistics: KeptStatistics
    bodies: BodyReader
    read_slots: ReadSlots
    handover: Handover
    intake: Intake
    repeats: RepeatsElsewhere
    trusted_proxies: TrustedProxies
    geolocation: Geolocation
    probe_tokens: ProbeTokens
    account_ids: AccountIds
    session_tokens: SessionTokens
    redirect_hosts: RedirectHosts
    mail: Transport
    probe_config: ProbeConfig
    url_queries: UrlQueries
    url_selection: UrlSelection
    url_overview: UrlOverview
    testlist_editing: ListEditing | None
    runtimes: Runtimes

    def body(self, uid: str) -> bytes | None:
        """Return a measurement as sent, None when nobody has it.

        Raises:
            BodyUnreadable: it exists but cannot be had now.
            DatabaseUnavailable: it is not in the spool, and the database that knows where else it is is away.
        """
        try:
            body = self.bodies.read_local(uid)
            if body is None:
                with self.read_slots.place():
                    body = self.bodies.read(uid)
        except (StoreError, ArchiveError) as error:
            BODY_SOURCE.labels("error").inc()
            log.error("body unreadable", uid=uid, error=str(error))
            raise BodyUnreadable from error
        if body is None or not body.decoded:
            BODY_SOURCE.labels("none").inc()
            return None
        BODY_SOURCE.labels(body.source).inc()
        return body.document

    def close(self) -> None:
        """Finish the hand-overs that wait and close the connections."""
        self.handover.stop()
        self.repeats.close()
        self.probe_config.close()
        self.url_selection.close()
        self.pool.close()


def build(settings: ApiSettings, slot: int = 0) -> Services:
    """Build the parts of one worker; `slot` tells the workers of a host apart, see `clock`.

    Nothing connects before its first use, so the API takes measurements while the database or the store is away.
    """
    root = Path(settings.spool_directory)
    spool = Spool(root, min_free_bytes=settings.spool_min_free_bytes)
    received = Received(root / "received")
    pool = open_pool(
        settings.db_uri,
        max_size=settings.database_connections,
        checkout_timeout_s=3.0,
        statement_timeout_ms=settings.statement_timeout_ms,
        application_name=APP,
    )
    store = open_store(settings.store_url, endpoint=settings.store_endpoint, region=settings.store_region)
    cache = BodyCache(root / "cache", settings.body_cache_bytes, min_free_bytes=2 * settings.spool_min_free_bytes)
    peers = PeerSpools(settings.peers, lambda result: PEER_READS.labels(result).inc()) if settings.peers else None
    bodies = BodyReader(spool, store, pool, cache=cache, peers=peers)
    repeats = RepeatsElsewhere(_impatient_pool(settings) if settings.repeats_from_database else None)

    def submission_of(uid: str) -> bytes | None:
        record = spool.read(uid)
        return None if record is None else record.body

    handover = Handover(
        settings.fastpath_url,
        timeout_s=settings.fastpath_timeout_s,
        size=settings.fastpath_queue,
        body_of=None if settings.fastpath_shares_spool else submission_of,
    )
    BackgroundRestore(received, lambda everything: received_in(spool, everything=everything)).start()
    read_slots = ReadSlots(settings.threads, settings.database_connections)
    probe_config = ProbeConfig(settings.probe_config_directory, Path(settings.state_directory) / COPIES)
    probe_config.start()
    url_queries = UrlQueries(pool)
    url_selection = UrlSelection(
        url_queries, Path(settings.state_directory), most_waiting=max(1, settings.threads // 4)
    )
    url_selection.start()
    limits = BodyLimits(settings.max_received_bytes, settings.max_inflated_bytes, settings.large_bodies_at_once)
    reader = Reader(pool, read_slots, longest_s=settings.statement_timeout_ms / 1000)
    return Services(
        settings=settings,
        pool=pool,
        queries=MeasurementQueries(reader),
        measurement_list=MeasurementList(reader),
        reader=reader,
        kept_statistics=KeptStatistics(reader, read_slots, settings.statistics_kept_s),
        bodies=bodies,
        read_slots=read_slots,
        handover=handover,
        intake=Intake(spool, received, repeats, handover, limits, ReceiptClock(slot)),
        repeats=repeats,
        trusted_proxies=TrustedProxies(settings.trusted_proxies),
        geolocation=Geolocation(settings.geo_country_db, settings.geo_asn_db),
        probe_tokens=_probe_tokens(settings),
        account_ids=_account_ids(settings),
        session_tokens=_session_tokens(settings),
        redirect_hosts=RedirectHosts(settings.login_redirect_hosts),
        mail=_mail(settings),
        probe_config=probe_config,
        url_queries=url_queries,
        url_selection=url_selection,
        url_overview=UrlOverview(url_queries),
        testlist_editing=testlist_editing.build(settings),
        runtimes=Runtimes(reader, Path(settings.state_directory)),
    )


def _key_file(settings: ApiSettings, configured: str, name: str) -> tuple[Path, bool]:
    """Return the path of a file with keys, and whether this host makes it."""
    return (Path(configured), False) if configured else (Path(settings.state_directory) / name, True)


def _probe_tokens(settings: ApiSettings) -> ProbeTokens:
    path, create = _key_file(settings, settings.probe_token_keys, signing.KEY_FILE)
    return ProbeTokens(path, create=create)


def _account_ids(settings: ApiSettings) -> AccountIds:
    path, create = _key_file(settings, settings.account_id_key, account_ids.KEY_FILE)
    return AccountIds(path, create=create)


def _session_tokens(settings: ApiSettings) -> SessionTokens:
    path, create = _key_file(settings, settings.session_keys, sessions.KEY_FILE)
    return SessionTokens(
        KeyFile(path, create=create),
        session_expiry_days=settings.session_expiry_days,
        login_expiry_days=settings.login_expiry_days,
    )


def _mail(settings: ApiSettings) -> Transport:
    if settings.mail_transport == "log":
        return LogTransport()
    return SmtpTransport(
        settings.mail_server,
        settings.mail_port,
        security=settings.mail_security,
        username=settings.mail_username,
        password_file=settings.mail_password_file,
        source_address=settings.mail_source_address,
        at_once=max(1, settings.threads // 4),
    )


def _impatient_pool(settings: ApiSettings) -> Pool:
    """Return the pool for questions that a submission waits for."""
    return open_pool(
        settings.db_uri,
        max_size=2,
        checkout_timeout_s=PATIENCE_S,
        statement_timeout_ms=STATEMENT_TIMEOUT_MS,
        application_name=f"{APP}-repeats",
    )


def services() -> Services:
    """Return the parts that belong to the current application."""
    return cast("Services", current_app.extensions[EXTENSION])
