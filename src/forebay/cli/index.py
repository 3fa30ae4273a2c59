"""`forebay index`: what OpenSearch makes of the events' indices."""

from __future__ import annotations

import asyncio

import typer

from forebay.settings import load_settings

app = typer.Typer(help="Prepare OpenSearch's indices.")


@app.callback()
def _group() -> None:
    """Keep this a group of commands, though it has one only."""


@app.command("init")
def init() -> None:
    """Put the index template in place, as the server does when it starts."""
    settings = load_settings()
    from forebay.sinks.opensearch import put_template  # noqa: PLC0415 - aiohttp takes 25 MiB

    typer.echo(asyncio.run(put_template(settings)))
