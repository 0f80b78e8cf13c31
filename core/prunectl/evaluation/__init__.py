"""Measurements of a model: data, tasks, quality, latency, MACs, memory. Knows nothing of jobs."""
