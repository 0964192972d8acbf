"""What the questions are about: countries, networks and measurements that the sample has much, or little, of."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg


@dataclass(frozen=True, slots=True)
class Facts:
    """Values that are put into the questions; `today` is the day (UTC) that the API takes for today."""

    today: date
    country: str
    small_country: str
    asn: int
    domain: str
    input: str
    uid: str
    report_id: str
    report_input: str
    software_version: str
    engine_version: str
    test_version: str
    run_link: int
    category: str = "NEWS"

    @property
    def tomorrow(self) -> date:
        """The day after today."""
        return self.today + timedelta(days=1)

    def ago(self, days: int) -> date:
        """A day before tomorrow, so that as many days are between the two."""
        return self.tomorrow - timedelta(days=days)


def find(dsn: str) -> Facts:
    """Look them up in the loaded database."""
    with psycopg.connect(dsn, autocommit=True) as connection:

        def one(sql: str, *values: object) -> Any:
            row = connection.execute(sql.encode(), values).fetchone()
            assert row is not None, f"the sample has nothing for: {sql}"
            return row[0] if len(row) == 1 else row

        countries = connection.execute(
            "SELECT probe_cc FROM counters_month_country WHERE probe_cc <> 'ZZ' GROUP BY 1"
            " ORDER BY sum(measurement_count) DESC"
        ).fetchall()
        country = "IR" if ("IR",) in countries else countries[0][0]
        asn = one(
            """SELECT probe_asn FROM counters_month_network WHERE probe_cc = %s GROUP BY 1
               ORDER BY sum(measurement_count) DESC LIMIT 1""",
            country,
        )
        domain, url = one(
            """SELECT domain, input FROM counters_month_input WHERE probe_cc = %s AND test_name = 'web_connectivity'
               GROUP BY 1, 2 ORDER BY sum(anomaly_count + confirmed_count) DESC LIMIT 1""",
            country,
        )
        recent = "measurement_start_time > (SELECT max(measurement_start_day) - 20 FROM counters_country)"
        uid, report_id, report_input = one(
            f"""SELECT measurement_uid, report_id, input FROM fastpath WHERE {recent} AND probe_cc = %s
                AND test_name = 'web_connectivity' ORDER BY measurement_start_time LIMIT 1""",
            country,
        )
        columns = ("software_version", "engine_version", "test_version", "ooni_run_link_id")
        software, engine, test, link = (
            one(
                f"""SELECT {column} FROM fastpath WHERE {recent} AND {column} IS NOT NULL AND probe_cc <> ''
                    GROUP BY 1 ORDER BY count(*) DESC LIMIT 1"""
            )
            for column in columns
        )
        return Facts(
            today=datetime.now(UTC).date(),
            country=country,
            small_country=countries[min(len(countries) - 1, 120)][0],
            asn=asn,
            domain=domain,
            input=url,
            uid=uid,
            report_id=report_id,
            report_input=report_input,
            software_version=software,
            engine_version=engine,
            test_version=test,
            run_link=int(link),
        )
