"""How many no-op jobs a second do other Python job queues on Redis do, beside plain consumers?

Each as fast as its settings make it: jobs are put in before its workers start, in bulk where it
can, results are off, it fetches ahead where it can, and two workers share two cores with Redis.
What is counted is how fast the queue drains in the middle of it. Ours, in the same rounds, are two
plain consumers in the slots of a node, item by item and in batches; and the same by hand.

Speed says nothing without what happens to a job whose worker is killed: that is in the table, too,
from each project's documentation and source.

Each peer lives in a virtual environment of its own under .cache/, made at the first run; the files
with_*.py run in there, not in ours.
"""
