"""Made-up names: of domains, pages and companies. All domains end in the reserved `.example`, so none is anybody's."""

import random

_STARTS = (
    "al an ar bel ber bra cal cor dan del dor el en fal far gal gor har hel il jor kal kor lan lor mar mel mir nal nor "
    "or pal per ral rin sal san ser tal tor tra ul val ver vin wes yar zan zor"
)
_MIDDLES = "a e i o u a e o an en in on ar er or al el ol as es is at et it"
_ENDS = "da de di ka ke ko la le li lo ma mi mo na ne no ra re ri ro sa se ta te ti to va ve vo za zo"
_KINDS = (
    "news press media times radio tv vpn chat mail bank shop forum blog games video music files search social rights "
    "watch post daily journal network group party church center archive wiki proxy poker bet date"
)
_SUFFIXES = "com com com com com com org org org net net info io".split(" ")  # noqa: SIM905 - one line
_HOSTS = ("www.", "www.", "www.", "www.", "", "", "", "m.", "news.")
_PAGES = (
    "en/",
    "index.html",
    "about",
    "login",
    "fa/home",
    "category/politics/",
    "watch?v=",
    "search?q=",
    "wiki/",
    "r/",
)
_COMPANIES = "Telecom Mobile Networks Broadband Internet Cable Fibre Communications Hosting Wireless Online Datacenter"
_NAMES_ALONE = 0.12  # domains that do not say what they are about


def word(draw: random.Random) -> str:
    """Return a word of three to nine letters that looks like a name."""
    middles = "".join(draw.choice(_MIDDLES.split()) for _ in range(draw.randint(0, 2)))
    return draw.choice(_STARTS.split()) + middles + draw.choice(_ENDS.split())


def domain(draw: random.Random, country: str = "") -> str:
    """Return a domain; those of a country's list often say so."""
    suffix = country.lower() if country and draw.random() < 0.6 else draw.choice(_SUFFIXES)
    kind = "" if draw.random() < _NAMES_ALONE else draw.choice(_KINDS.split())
    return f"{draw.choice(_HOSTS)}{word(draw)}{kind}.{suffix}.example"


def urls(draw: random.Random, of_domain: str) -> list[str]:
    """Return the addresses of a domain that a list has: nearly always one, with its scheme."""
    scheme = "https" if draw.random() < 0.75 else "http"
    found = [f"{scheme}://{of_domain}/"]
    if draw.random() < 0.12:
        for _ in range(draw.randint(1, 3)):
            page = draw.choice(_PAGES)
            found.append(f"{scheme}://{of_domain}/{page}{word(draw) if page.endswith(('=', '/')) else ''}")
    if draw.random() < 0.08:
        found.append(f"http://{of_domain}/" if scheme == "https" else f"https://{of_domain}/")
    return list(dict.fromkeys(found))


def company(draw: random.Random) -> str:
    """Return the name of a company that runs a network."""
    return f"{word(draw).title()} {draw.choice(_COMPANIES.split())}"
