"""How long a lease holds, and a producer's word."""

from __future__ import annotations

LEASE_S = 30.0
"""A node that has not renewed for so long loses its leases. It renews six times as often: several
in a row must fail, and a lost node's items still do not wait for long."""

PRODUCER_SILENCE_S = 30.0
"""A producer that has not said for so long that it will push more is taken for gone. It should say
so three times as often."""

PRODUCER_FORGOTTEN_S = 3600.0
"""Then it is taken out of the list, too."""
