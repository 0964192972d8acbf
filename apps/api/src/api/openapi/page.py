"""The document as one page of HTML, with nothing from elsewhere.

With scripts, Swagger UI takes its place: docs/adr/0016-api-reference-page.md.
"""

import json
from html import escape
from typing import Any

from api.openapi.assets import address
from api.openapi.model import Schema

_HEAD = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="{icon}">
<link rel="stylesheet" href="{vendor_style}">
<link rel="stylesheet" href="{style}">
<script src="{vendor_script}" defer></script>
<script src="{script}" defer></script>
</head>
<body>
<div id="interactive"></div>
<main id="reference">
<h1>{title}</h1>
"""


def page(document: Schema) -> str:
    """Return the page of an OpenAPI document."""
    head = _HEAD.format(
        title=escape(document["info"]["title"]),
        icon=address("favicon-32x32.png"),
        style=address("apidocs.css"),
        vendor_style=address("swagger-ui.css"),
        script=address("apidocs.js"),
        vendor_script=address("swagger-ui-bundle.js"),
    )
    parts = [head]
    parts += [f"<p>{_prose(text)}</p>" for text in document["info"]["description"].split("\n\n")]
    parts.append('<p>The same for programs: <a href="/openapi.json"><code>/openapi.json</code></a></p>')
    for tag in document["tags"]:
        parts.append(f"<h2>{escape(tag['name'])}</h2>\n<p>{_prose(tag['description'])}</p>")
        parts += [
            _operation(method, path, operation)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
            if tag["name"] in operation["tags"]
        ]
    parts.append("<h2>Schemas</h2>")
    parts += [
        f'<h3 id="{escape(name)}"><code>{escape(name)}</code></h3>\n{_json(schema)}'
        for name, schema in document["components"]["schemas"].items()
    ]
    return "\n".join([*parts, "</main>", "</body>", "</html>", ""])


def _operation(method: str, path: str, operation: Schema) -> str:
    parts = [
        f'<details id="{escape(operation["operationId"])}">',
        f"<summary><code>{method.upper()} {escape(path)}</code> {escape(operation['summary'])}</summary>",
    ]
    if "description" in operation:
        parts.append(f"<p>{_prose(operation['description'])}</p>")
    if "security" in operation:
        parts.append("<p>Needs <code>Authorization: Bearer TOKEN</code>.</p>")
    if "parameters" in operation:
        rows = (
            (parameter["name"], parameter["in"], parameter["description"], _example(parameter))
            for parameter in operation["parameters"]
        )
        parts.append(_table(("parameter", "in", "meaning", "example"), rows))
    if "requestBody" in operation:
        parts.append(f"<p>Body. {_prose(operation['requestBody'].get('description', ''))}</p>")
        parts += [_json(content["example"]) for content in operation["requestBody"]["content"].values()]
    parts += [f"<pre>{escape(sample['source'])}</pre>" for sample in operation["x-codeSamples"]]
    parts.append(
        _table(
            ("status", "meaning"), ((status, reply["description"]) for status, reply in operation["responses"].items())
        )
    )
    for status, reply in operation["responses"].items():
        if status >= "400":
            continue  # all look the same
        for media, content in reply.get("content", {}).items():
            if "example" in content:
                parts.append(f"<p>{status}, <code>{escape(media)}</code></p>\n{_json(content['example'])}")
    return "\n".join([*parts, "</details>"])


def _example(parameter: Schema) -> object:
    return parameter.get("example", next(iter(parameter["schema"].get("examples", ())), ""))


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = ["<table>", "<tr>" + "".join(f"<th>{name}</th>" for name in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows]
    return "\n".join([*lines, "</table>"])


def _prose(text: str) -> str:
    """Return text with what stands between backticks as code."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if index % 2 else piece for index, piece in enumerate(pieces))


def _json(value: object) -> str:
    return f"<pre>{escape(json.dumps(value, indent=1, ensure_ascii=False))}</pre>"
