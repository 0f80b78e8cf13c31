"""The command line: speaks HTTP; imports no torch, SQLAlchemy or Celery."""
