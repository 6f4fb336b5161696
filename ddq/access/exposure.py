"""What other machines may reach: refused at the start unless it is protected, or asked for.

A process that listens on the loopback alone needs neither TLS nor tokens. One that listens
elsewhere needs both, since a token without TLS can be read on its way, and TLS alone lets every
client in.
"""

from __future__ import annotations

import ipaddress

from ddq.config import Settings, StartupError, split_address

_PORT_HARM = "every machine that reaches it could read and delete everything"
_METRICS_HARM = "every machine that reaches it could read them"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address that a process listens on."""
    name = host.strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        # A name may be of any address, and of another one tomorrow.
        return False


def check_exposure(settings: Settings, *, listen: str | None, metrics_listen: str | None) -> None:
    """Refuses what other machines would reach without protection.

    Args:
        listen: where the gRPC port is; None: nowhere.
        metrics_listen: where the metrics are; None: nowhere.

    Raises:
        StartupError: with the reason and the remedy.
    """
    if settings.insecure:
        return
    if listen is not None and not is_loopback(split_address(listen)[0]):
        missing = _missing(settings, known=bool(settings.access_file or settings.tls_client_ca))
        if missing:
            raise StartupError(
                f"refusing to listen on {listen} without {' and '.join(missing)}: {_PORT_HARM}; "
                f"give {_remedy(missing)}, listen on 127.0.0.1, or give --insecure if something "
                "else protects the port"
            )
    if metrics_listen is None or settings.metrics_insecure:
        return
    if not is_loopback(split_address(metrics_listen)[0]):
        missing = _missing(settings, known=bool(settings.access_file))
        if missing:
            raise StartupError(
                f"refusing to show metrics on {metrics_listen} without {' and '.join(missing)}: "
                f"{_METRICS_HARM}; give {_remedy(missing)}, listen on 127.0.0.1, or give "
                "--metrics-insecure if that is intended"
            )


def _missing(settings: Settings, *, known: bool) -> list[str]:
    missing = [] if settings.tls_server_cert else ["TLS"]
    return missing if known else [*missing, "tokens"]


def _remedy(missing: list[str]) -> str:
    flags = {"TLS": "--tls-server-cert and --tls-server-key", "tokens": "--access-file"}
    return " and ".join(flags[each] for each in missing)
