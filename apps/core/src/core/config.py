"""Settings: one frozen struct per app, filled from a TOML file and the environment.

    class ApiSettings(msgspec.Struct, frozen=True, kw_only=True):
        # Port that the API listens on.
        port: int = 8000

    settings = load_settings(ApiSettings, app="api")

The file is /etc/ooni/<app>.toml, or the one named by OONI_<APP>_CONFIG; OONI_<APP>_<FIELD> in the environment wins
over it. What is not a setting is an error, in both: a misspelt key must not be silently without effect. Values never
appear in an error, because any of them may be a secret.
"""

import ast
import difflib
import inspect
import math
import os
import textwrap
import tomllib
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

import msgspec

CONFIG_DIRECTORY = Path("/etc/ooni")

_SECRET_WORDS = ("password", "secret", "token", "dsn", "db_uri", "access_key", "private_key", "api_key")
_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")

S = TypeVar("S", bound=msgspec.Struct)


class ConfigError(Exception):
    """A setting is missing, unknown or of the wrong type; the text names the key and says how to write it."""


class _Field(NamedTuple):
    name: str
    variable: str
    type: Any
    required: bool
    default: Any


def load_settings(cls: type[S], *, app: str, path: Path | None = None, environ: Mapping[str, str] = os.environ) -> S:
    """The settings of `app`: the defaults of `cls`, overlaid by the TOML file, overlaid by the environment.

    The file is `path`, else the one in OONI_<APP>_CONFIG, else /etc/ooni/<app>.toml, which alone may be absent.
    Raises ConfigError.
    """
    fields = {field.name: field for field in _fields(cls, app)}
    file = _file(app, path, environ)
    values: dict[str, Any] = {}
    for key, value in _read(file, required=file != CONFIG_DIRECTORY / f"{app}.toml").items():
        field = fields.get(key)
        if field is None:
            raise ConfigError(f"{file}: unknown key {key}{_nearest(key, fields)}")
        values[key] = _convert(value, field, f"{file}: key {key}", text=False)
    prefix = _prefix(app)
    variables = {field.variable: field for field in fields.values()}
    for variable in sorted(name for name in environ if name.startswith(prefix)):
        if variable == f"{prefix}CONFIG":
            continue
        field = variables.get(variable)
        if field is None:
            raise ConfigError(f"Unknown environment variable {variable}{_nearest(variable, variables)}")
        values[field.name] = _convert(environ[variable], field, f"Environment variable {variable}", text=True)
    for field in fields.values():
        if field.required and field.name not in values:
            raise ConfigError(f"Setting {field.name} is missing. Put it into {file} or set {field.variable}.")
    return cls(**values)


def describe(cls: type[msgspec.Struct], app: str) -> str:
    """The settings as a Markdown table (key, environment variable, default, meaning), for the README of the app.

    The meaning is the comment above the field, or the text below it.
    """
    meanings = _meanings(cls)
    lines = ["| key | environment | default | meaning |", "|---|---|---|---|"]
    for field in _fields(cls, app):
        default = "(mandatory)" if field.required else f"`{_show(field.default)}`"
        meaning = meanings.get(field.name, "").replace("|", "\\|")
        lines.append(f"| `{field.name}` | `{field.variable}` | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def public(settings: msgspec.Struct) -> dict[str, object]:
    """The settings as a dictionary fit for a log line: what may be a secret is replaced by `***`."""
    return {
        name: "***" if _is_secret(name) and getattr(settings, name) else getattr(settings, name)
        for name in settings.__struct_fields__
    }


def _is_secret(name: str) -> bool:
    return any(word in name.lower() for word in _SECRET_WORDS)


def _prefix(app: str) -> str:
    return f"OONI_{app.upper().replace('-', '_')}_"


def _file(app: str, path: Path | None, environ: Mapping[str, str]) -> Path:
    named = environ.get(f"{_prefix(app)}CONFIG")
    return path or (Path(named) if named else CONFIG_DIRECTORY / f"{app}.toml")


def _read(file: Path, *, required: bool) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if not required:
            return {}
        raise ConfigError(f"{file} does not exist. Create it, or name another configuration file.") from error
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}. Let the service's user read it.") from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise ConfigError(f'{file} is not TOML: {error}. Lines look like: key = "value".') from error


def _fields(cls: type[msgspec.Struct], app: str) -> list[_Field]:
    return [
        _Field(
            name=field.name,
            variable=_prefix(app) + field.name.upper(),
            type=field.type,
            required=field.required,
            default=field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default,
        )
        for field in msgspec.structs.fields(cls)
    ]


def _convert(value: Any, field: _Field, where: str, *, text: bool) -> Any:
    """`value` as the type of the field. `text`: it comes from the environment, so numbers and lists are text too."""
    try:
        if text:
            value = _from_text(value, _plain(field.type))
        return msgspec.convert(value, field.type, strict=True, dec_hook=_decode)
    except ValueError as error:  # msgspec.ValidationError is one
        expected, example = _expectation(_plain(field.type), text=text)
        raise ConfigError(f"{where} must be {expected}. Write it like: {example}") from error


def _from_text(value: str, wanted: Any) -> Any:
    if wanted is bool:
        lowered = value.strip().lower()
        if lowered in _TRUE or lowered in _FALSE:
            return lowered in _TRUE
        raise ValueError("not a boolean")
    if wanted is int:
        return int(value.strip())
    if wanted is float:
        number = float(value.strip())
        if not math.isfinite(number):
            raise ValueError("not a finite number")
        return number
    if get_origin(wanted) in (list, tuple):
        item = get_args(wanted)[0] if get_args(wanted) else str
        return [_from_text(part.strip(), item) for part in value.split(",") if part.strip()]
    return value


def _decode(wanted: type, value: Any) -> Any:
    if wanted is Path and isinstance(value, str):
        return Path(value)
    raise ValueError(f"no way to make {wanted} of {type(value)}")


def _plain(wanted: Any) -> Any:
    """The type itself, for an optional one (`int | None`)."""
    if get_origin(wanted) in (Union, types.UnionType):
        alternatives = [choice for choice in get_args(wanted) if choice is not type(None)]
        return alternatives[0] if len(alternatives) == 1 else wanted
    return wanted


def _expectation(wanted: Any, *, text: bool) -> tuple[str, str]:
    """What a value of this type is called, and an example as one writes it in the file or in the environment."""
    if get_origin(wanted) is Literal:
        choices = [str(choice) for choice in get_args(wanted)]
        return f"one of {', '.join(choices)}", choices[0] if text else f'"{choices[0]}"'
    if get_origin(wanted) in (list, tuple):
        return "a list", "one,two" if text else '["one", "two"]'
    names: dict[Any, tuple[str, str, str]] = {
        bool: ("true or false", "true", "true"),
        int: ("a whole number", "10", "10"),
        float: ("a number", "2.5", "2.5"),
        str: ("text", "some text", '"some text"'),
        Path: ("a path", "/var/lib/ooni", '"/var/lib/ooni"'),
    }
    called, in_environment, in_file = names.get(wanted, (str(wanted), "see the README", "see the README"))
    return called, in_environment if text else in_file


def _nearest(name: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)
    return f". The nearest known one is {found[0]}." if found else ". There are no settings."


def _show(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if value != "" else '""'


def _meanings(cls: type[msgspec.Struct]) -> dict[str, str]:
    """Per field the comment lines above it or the docstring below it, on one line; fields of base classes too."""
    found: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        if owner is msgspec.Struct or not issubclass(owner, msgspec.Struct):
            continue
        source = textwrap.dedent(inspect.getsource(owner))
        lines = source.splitlines()
        body = ast.parse(source).body[0]
        assert isinstance(body, ast.ClassDef)
        for position, node in enumerate(body.body):
            if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
                continue
            following = body.body[position + 1] if position + 1 < len(body.body) else None
            below = _string(following)
            found[node.target.id] = " ".join((below or _comment_above(lines, node.lineno - 1)).split())
    return found


def _string(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return node.value.value
    return ""


def _comment_above(lines: list[str], index: int) -> str:
    comment: list[str] = []
    while index > 0 and lines[index - 1].strip().startswith("#"):
        index -= 1
        comment.insert(0, lines[index].strip().lstrip("# "))
    return " ".join(comment)
