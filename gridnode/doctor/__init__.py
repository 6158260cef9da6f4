"""Checks this machine and says what to mend: `gridnode doctor`.

A check is a value: a name, a status, a message and, unless all is well, what to do. Each module
holds one, as a `judge_...` function from facts to a check and, where facts have to be fetched,
the function that fetches them. In the order in which they are shown:

    configuration   gridnode.toml can be read and is complete
    hub             the hub answers, and takes the token
    clock           this machine's clock is the hub's
    engine          Docker answers; what it says that it can limit
    architecture    images for this machine can run on that engine
    disk            there is space for images
    limits          a container really is held to one core and to its memory
    isolation       what a container reaches beside its gateway
    processes       the limits for runtime = "process"
    memory          all containers together fit into this machine

    check           what a check is
    probe           the program that tries the limits from inside
    examination     which check needs which, and runs them all
"""

from gridnode.doctor.check import Check
from gridnode.doctor.examination import examine

__all__ = ["Check", "examine"]
