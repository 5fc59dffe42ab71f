"""Requests that wait for a worker: who asked for what, where it stands, who works on it."""

from moe_cap.queue.queue import Queue
from moe_cap.queue.record import Attempt, Lease, Outcome, Progress, Request, State

__all__ = ["Attempt", "Lease", "Outcome", "Progress", "Queue", "Request", "State"]
