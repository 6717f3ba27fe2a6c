"""Distributed runtime: mesh, processes, rendezvous, heartbeat, preemption."""
