"""How long a lease holds."""

from __future__ import annotations

LEASE_S = 30.0
"""A node that has not renewed for so long loses its leases. It renews six times as often: several
in a row must fail, and a lost node's items still do not wait for long."""
