"""Schemathesis hooks: a serializer for NDJSON, which OpenAPI cannot describe."""

import json
from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines(_context: Any, value: Any) -> bytes:
    """One value per line. The generated value is a document, or something invalid in its place."""
    values = value if isinstance(value, list) else [value]
    return "".join(json.dumps(value) + "\n" for value in values).encode()
