"""Who may use a server: certificates of its port, its callers, and what each may do."""

from ddq.access.certificates import CertificateFiles
from ddq.access.exposure import check_exposure
from ddq.access.guard import Caller, Guard, Waiting
from ddq.access.metrics import metrics_protection
from ddq.access.rules import RULES, Rule, rule_of

__all__ = [
    "RULES",
    "Caller",
    "CertificateFiles",
    "Guard",
    "Rule",
    "Waiting",
    "check_exposure",
    "metrics_protection",
    "rule_of",
]
