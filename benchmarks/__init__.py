"""What the parts cost and how fast they are: one file a question, and no answer is an assertion.

    report            the machine, the versions and the table that every file prints
    heartbeats        how many heartbeats a second one hub process serves on one core
    task_switch       from "next" to SIGTERM in the running containers of 100 nodes
    memory            what agent, hub and store take while there is nothing to do
    container_start   from an item to its result when no container runs yet
    demo_speed        how fast a plain program drains its queue with and without a node around it
    gateway_speed     plain consumers through the gateway and straight on Redis, and the CPU of each
    gateway_far       the same with Redis 20 ms away
    gateway_cost      the gateway's latency, its memory, and what it asks of Redis
    examples_speedup  how well the programs in examples/ use several cores
    sdk_calls         `import gridcore` beside Ray, Dask and process pools: calls a second, costs
    peers             other Python job queues on Redis, and what they do when a worker is killed

    plain_consumers   the two sides of such a comparison
    sdk_peers         the programs of sdk_calls, one for each system
    environments      virtual environments of those that are measured beside ours
    delaying_proxy    puts a server far away

Each runs as `python -m benchmarks.<name>`; README.md holds what they have shown.
"""
