"""A whole grid on this machine: hub, store and one node, started as the programs that they are.

grid      starts them, talks to the hub, stops them in order
up        `gridcore up`: until Ctrl-C
demo      `gridcore demo`: a real task, every result checked
worker    what the demo's task runs: a plain program that knows nothing of us
"""
