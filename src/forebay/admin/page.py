"""The page that shows the description of the interface: one HTML text, which asks for nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from html import escape
from importlib.resources import files

from forebay.admin.curl import IN_PATH
from forebay.admin.schemas import Json

_TEMPLATE = files("forebay.admin").joinpath("page.html")
_CONTENT = "{content}"


def render_page(document: Json) -> str:
    """Return the page."""
    template = _TEMPLATE.read_text(encoding="utf-8")
    return template.replace(_CONTENT, "\n".join(_render(document)))


def content_security_policy(page: str) -> str:
    """Return the policy that lets a page use its own style and script, and nothing else."""
    hashes = {name: _hash(page, name) for name in ("style", "script")}
    return (
        f"default-src 'none'; img-src data:; style-src {hashes['style']}; script-src {hashes['script']}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _hash(page: str, element: str) -> str:
    text = page.partition(f"<{element}>")[2].partition(f"</{element}>")[0]
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _render(document: Json) -> Iterator[str]:
    """Yield the content of the page; everything that comes from the description is escaped."""
    info, components = document["info"], document["components"]
    yield f"<header><h1>{escape(info['title'])} <small class=quiet>{escape(info['version'])}</small></h1>"
    yield f"<p>{_text(info['summary'])}</p>"
    yield from (f"<p>{_text(paragraph)}</p>" for paragraph in info["description"].split("\n\n"))
    yield _figure("First of all", "export FOREBAY=<span class=server>http://localhost:3000</span> TOKEN=")
    yield "<h2>Tokens</h2>"
    yield _definitions((name, _text(scheme["description"])) for name, scheme in components["securitySchemes"].items())
    yield "</header>"
    for tag in document["tags"]:
        yield f"<section><h2>{escape(tag['name'])}</h2><p>{_text(tag['description'])}</p>"
        yield from _render_operations(document, tag["name"])
        yield "</section>"
    yield "<section><h2>Schemas</h2>"
    for name, schema in components["schemas"].items():
        yield f"<article id='{name}'><h3>{name}</h3>{_render_schema(schema)}</article>"
    yield "</section>"


def _render_operations(document: Json, tag: str) -> Iterator[str]:
    operations = [
        (path, f"<code><span class=method>{method}</span> {escape(path)}</code>", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if tag in operation["tags"]
    ]
    links = (f"<li><a href='#{operation['operationId']}'>{title}</a>" for _, title, operation in operations)
    yield f"<nav><ul>{''.join(links)}</ul></nav>"
    for path, title, operation in operations:
        asked = " or ".join(map(_ask, operation["security"])) or ("in the path" if IN_PATH in path else "none")
        yield f"<article id='{operation['operationId']}'><h3>{title}</h3>"
        yield f"<p>{_text(operation['summary'])}<br><span class=quiet>Token: {asked}</span></p>"
        yield from (_figure(escape(one["label"]), escape(one["source"])) for one in operation["x-codeSamples"])
        yield from _render_details(document, operation)
        yield "</article>"


def _render_details(document: Json, operation: Json) -> Iterator[str]:
    if "parameters" in operation:
        parameters = (_resolve(document, parameter) for parameter in operation["parameters"])
        yield f"<h4>Parameters</h4>{_definitions(map(_render_parameter, parameters))}"
    if "requestBody" in operation:
        kinds = (f"<li>{_text(line.removeprefix('- '))}" for line in operation["description"].splitlines())
        yield f"<h4>Body</h4><ul>{''.join(kinds)}</ul>"
        yield _definitions(_render_contents(operation["requestBody"]["content"]))
    answers = ((status, _resolve(document, answer)) for status, answer in operation["responses"].items())
    yield f"<h4>Answers</h4>{_definitions((status, _render_answer(answer)) for status, answer in answers)}"


def _ask(requirement: Json) -> str:
    """Return the token that an operation asks for, in words."""
    return " and ".join(" ".join([name, *scopes]) for name, scopes in requirement.items()) or "none"


def _resolve(document: Json, node: Json) -> Json:
    """Return the component to which a reference leads, or a node that is none itself."""
    if "$ref" not in node:
        return node
    _, _, kind, name = node["$ref"].split("/")
    component: Json = document["components"][kind][name]
    return component


def _render_parameter(parameter: Json) -> tuple[str, str]:
    name, schema = escape(parameter["name"]), _name_schema(parameter["schema"])
    example = f" Such as <code>{escape(parameter['example'])}</code>." if "example" in parameter else ""
    return (
        f"{name} {_quiet(parameter['in'])}",
        f"{_text(parameter['description'])}{example} {_quiet(schema)}",
    )


def _render_contents(contents: Json) -> Iterator[tuple[str, str]]:
    """Yield the types whose schema is known."""
    for media_type, media in contents.items():
        if media["schema"]:
            yield escape(media_type), _name_schema(media["schema"])


def _render_answer(answer: Json) -> str:
    parts = [_text(answer["description"])]
    parts += (
        f"<br>{escape(name)}: {_text(header['description'])}" for name, header in answer.get("headers", {}).items()
    )
    for media_type, media in answer.get("content", {}).items():
        parts.append(f"<br><span class=quiet>{escape(media_type)} {_name_schema(media['schema'])}</span>")
        parts += (f"<pre>{_example(one['value'])}</pre>" for one in media.get("examples", {}).values())
    return "".join(parts)


def _example(value: object) -> str:
    return escape(value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False))


def _render_schema(schema: Json) -> str:
    """Return an object's fields, or the kinds of value that are allowed."""
    described = f"<p>{_text(schema['description'])}</p>" if "description" in schema else ""
    required = schema.get("required", [])
    rows = (
        (
            f"{escape(name)}{_quiet(' required') if name in required else ''}",
            f"{_text(field.get('description', ''))} {_quiet(_name_schema(field))}",
        )
        for name, field in schema.get("properties", {}).items()
    )
    return described + (_definitions(rows) if "properties" in schema else _name_schema(schema))


def _name_schema(schema: Json) -> str:
    """Return a schema in a few words, with a link to the one that it refers to."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f"<a href='#{name}'>{name}</a>"
    if "anyOf" in schema:
        return " or ".join(filter(None, map(_name_schema, schema["anyOf"])))
    if "contentSchema" in schema:
        return f"text with {_name_schema(schema['contentSchema']) or 'JSON'}"
    if "items" in schema:
        return f"array of {_name_schema(schema['items'])}"
    if "properties" in schema:
        fields = (f"<code>{escape(name)}</code>: {_name_schema(one)}" for name, one in schema["properties"].items())
        return f"object with {', '.join(fields)}"
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    types = schema.get("type", [])
    return escape(" or ".join([types] if isinstance(types, str) else [*map(str, types), *map(str, values)]))


def _quiet(text: str) -> str:
    return f"<small class=quiet>{text}</small>" if text else ""


def _figure(caption: str, source: str) -> str:
    return f"<figure><figcaption>{caption}</figcaption><pre><code>{source}</code></pre></figure>"


def _definitions(rows: Iterable[tuple[str, str]]) -> str:
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{text}</dd>' for name, text in rows)}</dl>"


def _text(text: str) -> str:
    """Return a text of the description, in which only code is marked."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
