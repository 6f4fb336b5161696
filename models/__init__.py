"""The executable specification of ddq, beginning with queue.py."""
