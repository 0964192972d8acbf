"""The world that a sample is drawn from: countries, networks, test lists. The same seed gives the same world."""

import random
from dataclasses import dataclass
from datetime import date, timedelta

from tests.load.sample import names

from core.testlists import CATEGORIES

FIRST_DAY = date(2012, 12, 5)
"""The first measurements."""

# By the number of measurements, about as it is in public data: a few countries have most.
_COUNTRIES = (
    "US RU DE IN GB FR IT CA BR NL ES ID MY IR UA TR AU PL EG CN VE TH KE MM JP PK HK VN CH SE BE AT SA KZ ZA MX PH "
    "BD SG TW AR IQ NG AE CZ RO PT FI NO DK GR HU IE IL BY KR CO CL PE EC TZ UG ZW ZM ET GH CM SN CI TN DZ MA LY SD "
    "JO LB SY YE OM QA KW BH AZ GE AM UZ KG TJ TM AF NP LK KH LA MN NZ BG RS HR SI SK LT LV EE MD AL MK BA ME CY MT "
    "LU IS CR PA GT HN SV NI DO CU HT JM TT BO PY UY PR RW BI CD CG GA AO MZ MG MU ML BF NE TD BJ TG GN SL LR GM MR "
    "NA BW LS SZ MW SO DJ ER SS CF GQ CV ST KM SC RE GP MQ GF PF NC FJ PG SB VU WS TO GU BN TL MV BT MO PS XK AD MC "
    "SM LI GI FO GL GG JE IM BM KY BS BB AG DM GD KN LC VC SR GY BZ AW CW SX BQ VI VG TC AI MS FM PW MH KI NR TV CK "
    "NU AX "
)
COUNTRIES = _COUNTRIES.split()
_STEEPNESS = 1.1
_LISTED = 120  # countries with a test list of their own
_GLOBAL_DOMAINS = 1250
UNKNOWN_SHARE = 0.0002
"""Part of the measurements whose probe could not tell where it was: country ZZ, network 0."""

_CENSORS = (
    "CN IR RU TR EG PK ID MY MM VN SA AE KZ BY VE IN TH ET UZ TM SY YE OM QA KW BH JO BD SD LY IT ES GB UA KE UG TZ "
    "CU AZ TJ "
)
CENSORS = _CENSORS.split()


@dataclass(frozen=True, slots=True)
class Place:
    """A network in a country, its part of all measurements, and the day from which there are measurements of it."""

    country: str
    asn: int
    weight: float
    since: date


@dataclass(frozen=True, slots=True)
class Url:
    """An entry of a test list; `country` is ZZ or in lower case, as table citizenlab has it."""

    domain: str
    url: str
    country: str
    category: str


@dataclass(frozen=True, slots=True)
class NetworkName:
    """A row of table asnmeta."""

    asn: int
    changed: date
    name: str
    country: str
    short_name: str


@dataclass(frozen=True, slots=True)
class World:
    """Places, the test lists (by country, ZZ first), and the names of networks."""

    places: list[Place]
    lists: dict[str, list[Url]]
    names: list[NetworkName]


def build(seed: int, until: date) -> World:
    """Draw the world of a sample whose last day is `until`."""
    draw = random.Random(f"world {seed}")
    places = _places(draw, until)
    return World(places, _lists(draw), _names(draw, places))


def _places(draw: random.Random, until: date) -> list[Place]:
    weights = [1 / (rank + 1) ** _STEEPNESS for rank in range(len(COUNTRIES))]
    total = sum(weights) / (1 - UNKNOWN_SHARE)
    places = [Place("ZZ", 0, UNKNOWN_SHARE, FIRST_DAY)]
    numbers = draw.sample(range(100, 400_000), 20_000)
    days = (until - FIRST_DAY).days
    for country, weight in zip(COUNTRIES, weights, strict=True):
        networks = max(3, round(800 * weight**0.75))
        shares = [1 / (rank + 1) ** 1.25 for rank in range(networks)]
        for rank, share in enumerate(shares):
            # The largest is there from the first day on, other large ones early; small ones appear all along.
            later = 0.0 if rank == 0 else draw.random() ** (3.0 if rank < 5 else 0.8) * (0.5 if rank < 5 else 0.98)
            since = FIRST_DAY + timedelta(days=int(days * later))
            places.append(Place(country, numbers.pop(), weight / total * share / sum(shares), since))
    return places


def _lists(draw: random.Random) -> dict[str, list[Url]]:
    categories = sorted(CATEGORIES)
    used: set[str] = set()
    lists = {"ZZ": _list(draw, "ZZ", _GLOBAL_DOMAINS, categories, used)}
    for rank, country in enumerate(COUNTRIES[:_LISTED]):
        censor = country in CENSORS
        size = int(draw.uniform(40, 160) * (3 if censor else 1) * (1.5 if rank < 40 else 1))
        found = _list(draw, country, size, categories, used)
        for shared in draw.sample(lists["ZZ"], 4):  # lists overlap a little
            found.append(Url(shared.domain, shared.url, country.lower(), draw.choice(categories)))
        lists[country] = found
    return lists


def _list(draw: random.Random, country: str, size: int, categories: list[str], used: set[str]) -> list[Url]:
    found = []
    for _ in range(size):
        domain = names.domain(draw, "" if country == "ZZ" else country)
        if domain in used:
            continue
        used.add(domain)
        category = categories[min(len(categories) - 1, int(draw.expovariate(0.12)))]
        cc = country if country == "ZZ" else country.lower()
        found += [Url(domain, url, cc, category) for url in names.urls(draw, domain)]
    return found


def _names(draw: random.Random, places: list[Place]) -> list[NetworkName]:
    found = []
    for place in places[1:]:
        if draw.random() < 0.04:
            continue  # unknown to those who name networks
        company = names.company(draw)
        for number in range(draw.choice((1, 1, 1, 2, 3))):
            changed = date(2011, 1, 1) + timedelta(days=draw.randint(0, 1500) + 1500 * number)
            title = company if number == 0 else f"{company} {draw.choice(('Ltd', 'Group', 'SA', 'LLC'))}"
            found.append(NetworkName(place.asn, changed, title, place.country, company.upper().replace(" ", "-")))
    return found
