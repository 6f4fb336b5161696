"""ddq node: a data node of the store, which asks the Sentinels before it starts."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated

import typer

from ddq import logs
from ddq.cli.exits import CommandError, ExitCode, UsageError, guarded
from ddq.cli.running import Format, LogFormat

_PORT_MAX = 65_535


def _parse_sentinels(text: str) -> list[tuple[str, int]]:
    addresses = [_host_port(part.strip(), "HOST:PORT") for part in text.split(",")]
    if len(set(addresses)) != len(addresses):
        raise UsageError("a Sentinel is named twice; its vote would count twice")
    return addresses


def _host_port(text: str, form: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) <= _PORT_MAX:
        raise UsageError(f"invalid address {text!r}; expected {form}")
    return host, int(port)


def _parse_announce(text: str) -> tuple[str, int]:
    host, port = _host_port(text, "IP:PORT")
    try:
        return str(ipaddress.ip_address(host.strip("[]"))), port
    except ValueError:
        # Sentinels name masters by address: a name would equal none of them, and this node would
        # take itself for another node.
        raise UsageError(
            f"{host!r} is not an IP address; give the one by which the Sentinels know this node"
        ) from None


def node(
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            "-d",
            envvar="DDQ_NODE_DATA",
            metavar="FOLDER",
            help="Where the node keeps its data and its node.conf.",
        ),
    ],
    announce: Annotated[
        str,
        typer.Option(
            "--announce",
            envvar="DDQ_NODE_ANNOUNCE",
            metavar="IP:PORT",
            help="The address by which the Sentinels know this node; it listens on the port.",
        ),
    ],
    sentinels: Annotated[
        str,
        typer.Option(
            "--sentinels",
            envvar="DDQ_NODE_SENTINELS",
            metavar="HOST:PORT,…",
            help="All Sentinels there are; a majority of them has to answer.",
        ),
    ],
    master_name: Annotated[
        str,
        typer.Option(envvar="DDQ_NODE_MASTER_NAME", help="The master's name at the Sentinels."),
    ] = "mymaster",
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            envvar="DDQ_NODE_CONFIG",
            metavar="FILE",
            help="Settings of the server; without, those that ddq needs.",
            exists=True,
            dir_okay=False,
            readable=True,
        ),
    ] = None,
    server: Annotated[
        Path | None,
        typer.Option(
            "--server",
            envvar="DDQ_NODE_SERVER",
            metavar="PROGRAM",
            help="The server; else valkey-server on the PATH, else the one that came with ddq.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    bootstrap: Annotated[
        bool,
        typer.Option(
            "--bootstrap",
            envvar="DDQ_NODE_BOOTSTRAP",
            help="On the one node that the Sentinels name at first: start as master while "
            "the cluster is new. Has no effect later.",
        ),
    ] = False,
    force_master: Annotated[
        bool,
        typer.Option(
            "--force-master",
            help="Start as master although no Sentinel confirms it. Loses what only other "
            "nodes hold; for once, never for good.",
        ),
    ] = False,
    sentinel_username: Annotated[
        str | None, typer.Option(envvar="DDQ_NODE_SENTINEL_USERNAME", help="For the Sentinels.")
    ] = None,
    sentinel_password: Annotated[
        str | None,
        typer.Option(
            envvar="DDQ_NODE_SENTINEL_PASSWORD",
            show_envvar=True,
            help="For the Sentinels; better in the environment.",
        ),
    ] = None,
    sentinel_tls: Annotated[
        bool,
        typer.Option(
            "--sentinel-tls", envvar="DDQ_NODE_SENTINEL_TLS", help="The Sentinels speak TLS."
        ),
    ] = False,
    sentinel_ca: Annotated[
        Path | None,
        typer.Option(
            envvar="DDQ_NODE_SENTINEL_CA",
            metavar="FILE",
            help="A certificate authority of your own.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    log_format: Format = LogFormat.CONSOLE,
) -> None:
    """Start a data node of the store behind Sentinels, safely.

    It asks the Sentinels which node is the master. If that is another node, this one starts as its
    replica. If it is this node, it stays down until they have elected another one: what it has on
    disk may be less than what the replicas hold. If no majority answers, it waits. Then the server
    takes the place of this process.
    """
    # Late, so that other commands do not load it.
    from ddq.node.decision import Follow, Lead  # noqa: PLC0415
    from ddq.node.run import NodeOptions, NodeStartError, become_server, wait_for_role  # noqa: PLC0415
    from ddq.node.sentinels import Sentinels  # noqa: PLC0415
    from ddq.store.binary import find_server  # noqa: PLC0415

    logs.configure("info", log_format.value)
    ip, port = _parse_announce(announce)
    options = NodeOptions(
        data=data,
        ip=ip,
        port=port,
        sentinels=Sentinels(
            addresses=_parse_sentinels(sentinels),
            master_name=master_name,
            username=sentinel_username,
            password=sentinel_password,
            tls=sentinel_tls,
            ca_file=str(sentinel_ca) if sentinel_ca else None,
        ),
        server=server or find_server(),
        config=config,
        bootstrap=bootstrap,
        force_master=force_master,
    )

    async def asked() -> Follow | Lead:
        try:
            return await wait_for_role(options)
        except NodeStartError as error:
            raise CommandError(str(error), ExitCode.CONFLICT) from None

    role = guarded(asked())
    try:
        become_server(options, role)
    except NodeStartError as error:
        raise CommandError(str(error)) from None
