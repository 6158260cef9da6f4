"""Everything is killed, and every item still has exactly one result or one dead letter.

    python -m tests.chaos --items 200000 --seconds 600 --seed 7

plan      what is done to whom and when, and what the items are: drawn from a seed
consumer  what the containers run: plain redis-py, which knows nothing of us
proxy     the network between the nodes and Redis, which can be cut in mid-reply or stall
stages    where consumers run: as processes, or in containers
cast      Redis, hubs and nodes: the real programs
monkey    carries out the plan
verdict   a total-queue checker: what was pushed against all that is found in the end
run       one run, from the first push to the ledger that is printed
"""
