"""Takes the network away from a Python process: put on its path as ``sitecustomize.py``."""

import socket


def _refuse(*args: object, **options: object) -> None:
    raise OSError("this run is offline")


socket.socket.connect = _refuse  # type: ignore[method-assign]
socket.socket.connect_ex = _refuse  # type: ignore[method-assign, assignment]
socket.getaddrinfo = _refuse  # type: ignore[assignment]
