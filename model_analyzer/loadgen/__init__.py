"""The load generator: a process of its own, so that scraping, parsing and printing never delay a request.

client.py is the side of the analyzer; everything else runs in the child, which
needs the standard library only (and hpack for gRPC).
"""
