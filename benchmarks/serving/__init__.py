"""The server under load, beside what one would use instead, on one machine and in one run."""
