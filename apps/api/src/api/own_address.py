"""The e-mail address that some requests name beside the session: it has to be that of the account.

It is compared and forgotten. Who leaves it out is known by the session all the same.
"""

from api.account_ids import normal_address
from api.key_file import KeysUnavailable
from api.services import services
from api.signed_in import Account
from api.tokens import no_keys
from api.typed_errors import typed_error

NAME = "email_address"


def check_own_address(account: Account, value: object) -> None:
    """Check that `value` is the address of the account, or that there is none; admins may name any.

    Raises:
        ApiError: `err_request_params` for what is no text, `err_ownership` for somebody else's address, 503 when this
            host has no key to tell.
    """
    if value is None or value == "":
        return
    if not isinstance(value, str):
        raise typed_error("err_request_params", f"Parameter {NAME} must be text; or leave it out.")
    if account.is_admin:
        return
    address = normal_address(value)
    try:
        own = address is not None and services().account_ids.of(address) == account.account_id
    except KeysUnavailable:
        raise no_keys() from None
    if not own:
        hint = f"Parameter {NAME} must be the address that you signed in with; or leave it out."
        raise typed_error("err_ownership", hint)
