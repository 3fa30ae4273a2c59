"""Free TCP ports on loopback for servers that the tests start, kill and start again."""

import random
import socket

HOST = "127.0.0.1"
# Below the range that Linux takes the ports of outgoing connections from. In that range somebody's outgoing
# connection could take the port while the server is down, and a client that keeps trying to connect to the
# port could be given the same one as its own and so be connected to itself.
PORTS = range(20_000, 32_000)


def free_ports(count: int) -> list[int]:
    """Return so many different ports that nothing listens on now."""
    found: list[int] = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        if len(found) == count:
            return found
        if _is_free(port):
            found.append(port)
    raise RuntimeError(f"no {count} free ports between {PORTS.start} and {PORTS.stop}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
