"""Who may use a server: certificates of its port, its callers, and what each may do."""

from ddq.access.certificates import CertificateFiles
from ddq.access.guard import Caller, Guard, Waiting
from ddq.access.rules import RULES, Rule, rule_of

__all__ = ["RULES", "Caller", "CertificateFiles", "Guard", "Rule", "Waiting", "rule_of"]
