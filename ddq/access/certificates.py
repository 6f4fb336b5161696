"""The certificate of the gRPC port, and the authorities that sign those of clients.

gRPC asks for the certificate before each handshake. The files are compared with what was read
last, and read again when one of them has changed. What cannot be used, such as a certificate
beside the key of its predecessor while both are being replaced, is never served: the earlier
certificate stays until the files fit together.
"""

from __future__ import annotations

import logging
import ssl
import threading
from pathlib import Path

import grpc

from ddq.access.files import Signature, signature
from ddq.config import Settings, StartupError

log = logging.getLogger(__name__)

TLS_MIN_VERSION = ssl.TLSVersion.TLSv1_2
"""gRPC has the same bound, which it does not let one lower."""


class CertificateFiles:
    """The files of a certificate, read now and again when they change.

    Args:
        cert: certificate and chain, PEM.
        key: private key, PEM; None: it is in the file of the certificate.
        client_ca: CA certificates that have to have signed the clients' own, PEM; None: clients
            need none.

    Raises:
        StartupError: they cannot be used.
    """

    def __init__(self, cert: Path, key: Path | None = None, client_ca: Path | None = None) -> None:
        self._cert = cert
        self._key = key or cert
        self._client_ca = client_ca
        self._lock = threading.Lock()
        self._signature: Signature = ()
        self._refused: Signature = ()
        try:
            self._current = self._read()
        except OSError as error:
            raise StartupError(f"{self._name()} cannot be used: {_reason(error)}") from None

    @classmethod
    def of(cls, settings: Settings) -> CertificateFiles | None:
        """Those that the settings name; None: they name none.

        Raises:
            StartupError: they cannot be used, or are incomplete.
        """
        if not settings.tls_server_cert:
            for name in ("tls_server_key", "tls_client_ca"):
                if getattr(settings, name):
                    raise StartupError(
                        f"{name} is given without tls_server_cert; give the server's certificate "
                        f"too, or leave {name} out"
                    )
            return None
        return cls(
            Path(settings.tls_server_cert),
            Path(settings.tls_server_key) if settings.tls_server_key else None,
            Path(settings.tls_client_ca) if settings.tls_client_ca else None,
        )

    @property
    def client_certificates(self) -> bool:
        """Whether each client has to have a certificate."""
        return self._client_ca is not None

    def server_credentials(self) -> grpc.ServerCredentials:
        """For add_secure_port; every handshake has what the files then contain."""
        return grpc.dynamic_ssl_server_credentials(
            self._current,
            self._changed,  # type: ignore[arg-type] # The stubs do not know that it may be None.
            require_client_authentication=self.client_certificates,
        )

    def ssl_context(self) -> ssl.SSLContext:
        """For other ports than gRPC's: a context with what the files contain now.

        Raises:
            OSError: they cannot be used.
        """
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = TLS_MIN_VERSION
        # Without an answer to the question OpenSSL would ask for a passphrase on the terminal.
        context.load_cert_chain(self._cert, self._key, password=lambda: b"")
        if self._client_ca is not None:
            context.load_verify_locations(self._client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def anonymous_context(self) -> ssl.SSLContext:
        """The same, for clients without a certificate; see ssl_context."""
        context = self.ssl_context()
        context.verify_mode = ssl.CERT_NONE
        return context

    def signature(self) -> Signature:
        """Changes when one of the files does."""
        return signature(self._cert, self._key, *([self._client_ca] if self._client_ca else []))

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """What is to be used from this handshake on; None: what was used before.

        gRPC calls it in threads of its own, and takes no connection if it raises.
        """
        with self._lock:
            found = self.signature()
            if found in (self._signature, self._refused):
                return None
            try:
                self._current = self._read()
            except OSError as error:
                self._refused = found
                log.error(  # noqa: TRY400 - the traceback says nothing more
                    "%(files)s cannot be used, the earlier certificate stays in use: %(reason)s",
                    {"files": self._name(), "reason": _reason(error)},
                )  # fmt: skip
                return None
            log.info("%(files)s was read again, since it has changed", {"files": self._name()})
            return self._current

    def _read(self) -> grpc.ServerCertificateConfiguration:
        """Raises OSError if the files cannot be used, or changed meanwhile."""
        before = self.signature()
        self.ssl_context()
        configuration = grpc.ssl_server_certificate_configuration(
            [(self._key.read_bytes(), self._cert.read_bytes())],
            self._client_ca.read_bytes() if self._client_ca else None,
        )
        if self.signature() != before:
            raise OSError("it was replaced while it was read")
        self._signature = before
        return configuration

    def _name(self) -> str:
        parts = [f"tls_server_cert {str(self._cert)!r}"]
        if self._key != self._cert:
            parts.append(f"tls_server_key {str(self._key)!r}")
        if self._client_ca is not None:
            parts.append(f"tls_client_ca {str(self._client_ca)!r}")
        return " with ".join(parts)


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"{error.reason or error}; is it PEM, and does the key belong to the certificate?"
    where = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror or error}{where}"
