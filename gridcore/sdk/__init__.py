"""Functions, classes and values on a grid: what `import gridcore` offers to programs.

    decorator     `@remote`, `@actor`
    functions     on a function; `mapping` is its `.map`
    actors        on a class
    options       what may be said of them, and that it makes sense
    binding       whether arguments fit
    refs          `ObjectRef`
    streaming     `ObjectRefGenerator`
    collecting    `get`, `put`, `wait`, `as_completed`, `gather`, `cancel`
    executor      `Executor`, as the standard library has them
    actor_pool    `ActorPool`
    queues        `Queue`
    events        `events`; `listening` has what they are
    progressing   `progress`
    state         `nodes`, what they offer, and where code runs; `context` has the types
    session       `init`, `shutdown`, and the engine of this process
    engine        the seam below which calls run
    exporting     functions and arguments as engines take them
    packing       values as bytes
    by_value      what the standard pickle refuses
    blobs         memory that processes share
    open_files    as many as there may be
    errors        what a call can end with
    outcomes      how a call ended, and errors as they travel
    driver        the process that makes calls, on any engine
    workers       the processes that run them
    local         the engine on this machine
    grid          the engine on a hub's grid

`gridcore/__init__.py` names what is public, and loads it when it is first used.
"""
