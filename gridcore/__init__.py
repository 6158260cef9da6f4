"""What hub, node and users share.

    wire        the messages between hub, nodes and scripts (pydantic)
    platforms   what a machine calls itself, and what an image registry calls it
    redis_urls  reading, hiding and re-addressing redis:// URLs
    config_file where configuration lies, and errors that name file, line and key
    errors      one base class: what was tried, the likely cause, the next step
    logs        one line an event
    cli         the `gridcore` command: `up` and `demo`

Nothing here imports `computehub` or `gridnode`; both import this package.
"""

__version__ = "0.1.0"
