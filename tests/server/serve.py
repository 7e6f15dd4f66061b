"""A server in a process of its own, which prints its address: ``python serve.py PATH LISTEN``."""

from __future__ import annotations

import sys

from gingham.server.main import serve

if __name__ == "__main__":
    serve(sys.argv[1], listen=sys.argv[2], ready=lambda url: print(url, flush=True))
