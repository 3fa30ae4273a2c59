"""OpenSearch as a sink: `sink` is the whole of it.

`access` and `client` speak HTTP, `answers` turns answers to bulks into outcomes, `template_keeper` keeps the index
template in place, `reader` reads, `indices` lists and deletes months, `check` asks whether we may write. Only modules
that send something import aiohttp, which takes 25 MiB.
"""
