"""Scores, masks and surgery. Knows nothing of jobs, databases or Celery. Importing this package imports no torch."""
