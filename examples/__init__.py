"""Programs that show what `import gridcore` can do; README.md says what each prints.

    pi                a function, called with many seeds
    squares           `.map`
    primes            calls that take different times
    matrix            values put once for many calls
    image_filter      one large value in parts
    actors            what keeps something between calls
    pipeline          calls one after another, and no more than memory allows
    search            the first good result ends the others
    parameter_server  an actor that calls push to

Each runs as `python examples/<name>.py`, here and on a grid.
"""
