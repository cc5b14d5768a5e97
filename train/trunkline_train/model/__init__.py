"""The multitask model: one encoder with a head per task."""
