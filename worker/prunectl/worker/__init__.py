"""Celery workers: thin tasks, a supervisor a job, and a runner process that walks a pipeline of stages."""
