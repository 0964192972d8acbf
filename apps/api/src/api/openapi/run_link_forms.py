"""Schemas and examples of run links, as they are sent and as they are shown."""

from api.openapi.model import ANY_OBJECT, BOOLEAN, TEXT, Schema, asked, listed, nullable, record, text
from api.openapi.schemas import TIME_SCHEMA, URL
from api.run_link_fields import (
    FLAGS,
    LONGEST_DESCRIPTION,
    LONGEST_ICON,
    LONGEST_INPUT,
    MOST_INPUTS,
    MOST_NETTESTS,
    WEBSITES,
    Lengths,
)

LINK_ID = "10001"
"""The run link of all examples but one."""
OTHER_LINK_ID = "10000"
"""The one that is archived in them."""

_LANGUAGES: Schema = {"type": "object", "propertyNames": {"pattern": "^[A-Za-z]{2,3}([-_][0-9A-Za-z]{2,8}){0,3}$"}}
_INPUTS_EXTRA: Schema = {"type": "array", "maxItems": MOST_INPUTS}
_TARGETS = text(enum=[WEBSITES])
_FLAGS = dict.fromkeys(FLAGS, BOOLEAN)
_DEFAULT_FLAGS = {f"{name}_default": BOOLEAN for name in FLAGS}

_NETTEST_ASKED = asked(
    {
        "test_name": text("[0-9A-Za-z][0-9A-Za-z_.@-]{0,99}"),
        "inputs": listed(text(minLength=1, maxLength=LONGEST_INPUT), maxItems=MOST_INPUTS),
        "inputs_extra": _INPUTS_EXTRA,
        "options": ANY_OBJECT,
        "backend_options": ANY_OBJECT,
        "targets_name": _TARGETS,
        **_FLAGS,
        **_DEFAULT_FLAGS,
    },
    required=("test_name",),
)
_NETTEST_SHOWN: dict[str, Schema] = {
    "test_name": TEXT,
    "inputs": nullable(listed(TEXT)),
    "inputs_extra": nullable(listed({})),
    "options": ANY_OBJECT,
    "backend_options": ANY_OBJECT,
    "targets_name": nullable(_TARGETS),
    **_DEFAULT_FLAGS,
}
_NETTEST = record(_NETTEST_SHOWN, optional=("backend_options",))
NETTEST_FOR_PROBE = record({**_NETTEST_SHOWN, **_FLAGS}, optional=("backend_options",))
_NETTEST_V1 = record({**_NETTEST_SHOWN, **_FLAGS}, optional=tuple({*_NETTEST_SHOWN, *_FLAGS} - {"test_name"}))


def texts_asked(lengths: Lengths) -> dict[str, Schema]:
    """Return what a run link may say and run, with short texts of these lengths."""
    bounds = {"name": lengths.name, "short_description": lengths.short_description}
    found: dict[str, Schema] = {"description": text(maxLength=LONGEST_DESCRIPTION)}
    for name, (least, most) in bounds.items():
        found[name] = text(minLength=least, maxLength=most)
    found |= {f"{name}_intl": {**_LANGUAGES, "additionalProperties": text(minLength=1)} for name in tuple(found)}
    return {
        **found,
        "icon": text(maxLength=LONGEST_ICON),
        "color": text("#[0-9A-Fa-f]{6}"),
        "nettests": listed(_NETTEST_ASKED, maxItems=MOST_NETTESTS),
    }


_TRANSLATIONS: Schema = {"type": "object", "additionalProperties": TEXT}
_TEXTS: dict[str, Schema] = {
    **dict.fromkeys(("name", "short_description", "description"), TEXT),
    **dict.fromkeys(("name_intl", "short_description_intl", "description_intl"), _TRANSLATIONS),
    "author": {**TEXT, "description": "Shown to everybody only when it is no e-mail address."},
    "icon": TEXT,
}
DESCRIPTOR = record(
    {**_TEXTS, "color": TEXT, "nettests": listed(_NETTEST_V1)},
    optional=("short_description", "description", "name_intl", "short_description_intl", "description_intl", "color"),
)
LINK = record(
    {
        **_TEXTS,
        "color": nullable(TEXT),
        "date_created": TIME_SCHEMA,
        "date_updated": TIME_SCHEMA,
        "expiration_date": TIME_SCHEMA,
        "is_expired": BOOLEAN,
        "is_mine": BOOLEAN,
        "nettests": listed(_NETTEST),
        "oonirun_link_id": text("[0-9]{5,18}"),
        "revision": text("[0-9]{1,9}"),
    }
)

WRITTEN_EXAMPLE = {
    "name": "Messengers",
    "name_intl": {"it": "Messaggistica"},
    "short_description": "Whether messengers work.",
    "description": "What it tests, in *markdown*.",
    "icon": "FaBeer",
    "nettests": [
        {"test_name": "signal", "is_background_run_enabled_default": False},
        {"test_name": "web_connectivity", "inputs": [URL]},
    ],
}
NETTEST_EXAMPLE: dict[str, object] = {
    "test_name": "web_connectivity",
    "inputs": [URL],
    "inputs_extra": None,
    "options": {},
    "targets_name": None,
    "is_background_run_enabled_default": True,
    "is_manual_run_enabled_default": True,
}
LINK_EXAMPLE = {
    "oonirun_link_id": LINK_ID,
    "name": "Messengers",
    "name_intl": {"it": "Messaggistica"},
    "short_description": "Whether messengers work.",
    "short_description_intl": {},
    "description": "What it tests, in *markdown*.",
    "description_intl": {},
    "author": "",
    "icon": "FaBeer",
    "color": None,
    "date_created": "2024-01-01T00:01:00.000000Z",
    "date_updated": "2024-01-01T00:01:00.000000Z",
    "expiration_date": "2099-01-01T00:00:00.000000Z",
    "is_expired": False,
    "is_mine": False,
    "nettests": [NETTEST_EXAMPLE],
    "revision": "1",
}
