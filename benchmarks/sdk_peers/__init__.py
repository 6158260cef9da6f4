"""What `import gridcore` does and what others like it do, each measured in a program of its own.

    measure      what every system is asked, in the same order; prints figures as JSON
    descendants  memory and CPU of a program and of all that it has started
    futures      what systems with the interface of concurrent.futures have in common
    queued       a million calls that wait for two workers of the local engine

    with_gridcore, with_gridcore_executor, with_gridcore_grid
    with_ray, with_dask, with_processes, with_pool, with_loky

benchmarks.sdk_calls starts them in turn. They run in virtual environments without this project's
dependencies, so that they import nothing but the system and the standard library; numpy is there
where a system has large values.
"""
