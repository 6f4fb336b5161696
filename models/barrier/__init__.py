"""A model of the unbroken-barrier rule: three hosts, Sentinels, one client, whole-host faults.

``store.py`` says what data nodes and Sentinels may do, ``rule.py`` when the client's replies may
leave, ``search.py`` goes through every schedule within bounds and returns the shortest one in which
an acknowledged write is lost. ``python -m models.barrier --help`` runs it.
"""
