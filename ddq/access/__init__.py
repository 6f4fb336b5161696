"""Who may use a server: certificates of its port, credentials of its callers, and their scopes."""

from ddq.access.certificates import CertificateFiles

__all__ = ["CertificateFiles"]
