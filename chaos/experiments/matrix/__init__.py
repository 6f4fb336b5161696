"""The boundary of each durability, measured: ``make sweep`` and ``make chaos-matrix``.

One cluster a mode; between steps it is waited for until it is in sync again. A step writes tasks
as fast as it can through the APIs while one fault passes, and then looks which of the acknowledged
ones the surviving master holds.
"""
