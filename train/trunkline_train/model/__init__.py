"""The multitask model: one encoder, a head per task."""
