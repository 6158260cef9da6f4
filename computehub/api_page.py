"""/docs: the API on one page that needs no Internet, made from the OpenAPI description.

FastAPI's own page loads its scripts from elsewhere, and is blank where that is out of reach; it
stays at /docs/interactive for those who want to try calls in the browser.
"""

from __future__ import annotations

import json
from html import escape
from typing import Any

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1c2430; background: #fff }
h2 { margin: 2.5rem 0 .3rem; font-size: 1.1rem; border-top: 1px solid #d5dbe3; padding-top: 1rem }
code, pre { font: 14px/1.45 ui-monospace, monospace }
pre { background: #f2f5f8; padding: .7rem 1rem; overflow-x: auto; border-radius: 4px }
table { border-collapse: collapse; margin: .5rem 0 }
td { padding: .15rem 1.2rem .15rem 0; vertical-align: top }
.method { display: inline-block; min-width: 4.5rem; color: #0b6b50; font-weight: 600 }
.quiet { color: #5a6675 }
@media (prefers-color-scheme: dark) {
  body { color: #dfe5ec; background: #14181d } pre { background: #1e242c }
  h2 { border-color: #333c47 } .method { color: #5fcfae } .quiet { color: #95a1b0 }
  a { color: #8ab4f8 }
}
"""


def api_page(description: dict[str, Any], base_url: str) -> str:
    """The whole page; `base_url` is how the reader has reached the hub."""
    schemas = description["components"]["schemas"]
    calls = [
        _call(method, path, details, schemas, base_url)
        for path, by_method in description["paths"].items()
        for method, details in by_method.items()
    ]
    info = description["info"]
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>
<body><h1>{escape(info["title"])} <span class="quiet">{escape(info["version"])}</span></h1>
<p>{escape(info.get("summary", ""))} Every call but <code>GET /health</code> needs the token. A
refusal is <code>{{"detail": what to do about it, "code": what it is}}</code>.</p>
<p><a href="/openapi.json">openapi.json</a> for programs; <a href="/docs/interactive">try the calls
in the browser</a> (that page loads its scripts from the Internet).</p>
{"".join(calls)}</body></html>"""


def _call(
    method: str, path: str, details: dict[str, Any], schemas: dict[str, Any], base_url: str
) -> str:
    body = _body_schema(details, schemas)
    rows = [
        (f"?{p['name']}=" if p["in"] == "query" else p["name"], p["schema"], p.get("description"))
        for p in details.get("parameters", [])
    ]
    if body:
        needed = body.get("required", [])
        rows += [
            (name + ("" if name in needed else "?"), field, field.get("description"))
            for name, field in body["properties"].items()
        ]
    table = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td class=quiet>{escape(_type(schema))}</td>"
        f"<td>{escape(text or '')}</td></tr>"
        for name, schema, text in rows
    )
    said = escape(details.get("description", details.get("summary", "")))
    return (
        f'<h2><span class="method">{method.upper()}</span> <code>{escape(path)}</code></h2>'
        f"<p>{said}</p><table>{table}</table>"
        f"<pre>{escape(_curl(method, path, body, base_url))}</pre>"
    )


def _body_schema(details: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any] | None:
    content = details.get("requestBody", {}).get("content", {})
    reference = content.get("application/json", {}).get("schema", {}).get("$ref", "")
    found: dict[str, Any] | None = schemas.get(reference.rpartition("/")[2])
    return found


def _type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(one) for one in schema["anyOf"]))
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "enum" in schema or "const" in schema:
        return " | ".join(json.dumps(value) for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("type", "any"))


def _curl(method: str, path: str, body: dict[str, Any] | None, base_url: str) -> str:
    parts = ["curl"]
    if path != "/health":
        parts.append('-H "Authorization: Bearer $TOKEN"')
    if method not in ("get", "post") or (method == "post" and not body):
        parts.append(f"-X {method.upper()}")
    if body:
        examples = body.get("examples")
        example = json.dumps(examples[0] if examples else dict.fromkeys(body["required"], "..."))
        parts.append(f"-H \"Content-Type: application/json\" \\\n     -d '{example}'")
    return " ".join([*parts, f"'{base_url.rstrip('/')}{path}'"])
