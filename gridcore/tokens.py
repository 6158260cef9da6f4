"""What a token may look like: it travels in an HTTP header."""

from __future__ import annotations


def check_token(token: str) -> str:
    """The token itself, or ValueError with what to change."""
    if not token:
        raise ValueError("it is empty: copy the token from the hub's computehub.toml")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("it holds a blank or a sign that cannot be sent: copy it again")
    return token
