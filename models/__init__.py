"""The executable specification of ddq. Start with queue.py."""
