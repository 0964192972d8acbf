"""The document as one page of HTML, without scripts and without anything from elsewhere."""

import json
from html import escape
from typing import Any

from api.openapi.model import Schema

_HEAD = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 1rem/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }}
h2 {{ border-bottom: 1px solid #bbb; margin-top: 3rem; text-transform: capitalize; }}
code, pre {{ background: #eee; font-size: .9em; padding: 0 .2em; }}
pre {{ overflow-x: auto; padding: .6em; white-space: pre-wrap; }}
details {{ margin: .6rem 0; }}
summary {{ cursor: pointer; }}
table {{ border-collapse: collapse; width: 100%; }}
td, th {{ border-bottom: 1px solid #ddd; padding: .2em .6em .2em 0; text-align: left; vertical-align: top; }}
</style>
</head>
<body>
<h1>{title}</h1>
"""


def page(document: Schema) -> str:
    """Return the page of an OpenAPI document."""
    parts = [_HEAD.format(title=escape(document["info"]["title"]))]
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
    return "\n".join([*parts, "</body>", "</html>", ""])


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
            (parameter["name"], parameter["in"], parameter["description"], parameter.get("example", ""))
            for parameter in operation["parameters"]
        )
        parts.append(_table(("parameter", "in", "meaning", "example"), rows))
    if "requestBody" in operation:
        parts.append(f"<p>Body. {_prose(operation['requestBody'].get('description', ''))}</p>")
        parts += [_json(content["example"]) for content in operation["requestBody"]["content"].values()]
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
