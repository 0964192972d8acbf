"""Errors with a code that programs know, beside the text: of incidents, run links, test lists and priorities.

The table is that of the wire contract; the texts may be more exact than its.
"""

from collections.abc import Mapping
from typing import Any

from api.errors import ApiError

ERRORS: Mapping[str, tuple[str, int]] = {
    "err_generic_ooni_exception": ("Generic OONI error", 400),
    "err_bad_url": ("Invalid URL", 400),
    "err_bad_category_code": ("Invalid category code", 400),
    "err_bad_category_description": ("Invalid category description", 400),
    "err_bad_date": ("Invalid date", 400),
    "err_country_not_supported": ("Country Not Supported", 400),
    "err_invalid_country_code": ("Country code is invalid", 400),
    "err_empty_translation_field": ("Empty translation field", 400),
    "err_duplicate_url": ("Duplicate URL", 400),
    "err_duplicate_rule": ("Duplicate rule", 400),
    "err_rule_not_found": ("Rule not found error", 404),
    "err_cannot_close_pr": ("Unable to close PR. Please reload data.", 400),
    "err_cannot_update_list": ("Unable to update. The URL list has changed in the meantime.", 400),
    "err_no_proposed_changes": ("No changes are being proposed", 400),
    "err_ownership": ("Attempted to create, update or delete an item belonging to another user", 400),
    "err_request_params": ("Invalid parameters in the request", 400),
    # Not of the contract: what somebody edits is not what is there any more.
    "err_changed_meanwhile": ("It was changed in the meantime. Reload it, and make your changes again.", 400),
}
"""Each code with its text and its status."""


def typed_error(code: str, hint: str = "", args: Mapping[str, Any] | None = None) -> ApiError:
    """Return the error `code`, with what to do next under `hint` and its `args` under `err_args`."""
    text, status = ERRORS[code]
    body: dict[str, object] = {"err_str": code}
    if args is not None:
        body["err_args"] = dict(args)
    if hint:
        body["hint"] = hint
    return ApiError(status, text, body=body)
