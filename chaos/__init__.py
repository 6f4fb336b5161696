"""The chaos harness: clusters, faults, workloads, recorded histories, and checkers that judge them.

It reaches ddq as its users do, through the public client, its errors and the generated API, so that
no mistake of ddq can hide in code that both share.
"""
