"""The agent on every machine: joins the fleet, keeps one container per core at work.

In reading order:

    config        gridnode.toml, and saving the id that the hub gives
    hub_client    the calls to the hub (the only module that knows HTTP)
    membership    register, heartbeat, long poll: what the hub knows of us, what we are to do
    report        what the next heartbeat says
    ending        how a run ended, and when the slot may start the next (no I/O)
    slot          one core's loop: wait for work, run a container, see how it ends
    crew          all slots on one task, from the image to the last container
    delivery      how a run reaches its queues; the gateway's place
    agent         puts these together; follows the hub from task to task; stops in order
    cores         which cores there are (no I/O)
    runtimes/     what runs a container: Docker, or plain processes
    doctor        checks this machine and says what to mend
    python_image  an image made of this machine's own Python, without a registry
    image_archive writes an image as `docker save` would
"""
