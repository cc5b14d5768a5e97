"""Faults that a server must survive, injected into real ones, and what became of the calls."""
