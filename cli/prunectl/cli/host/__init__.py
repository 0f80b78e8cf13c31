"""What runs on this machine: the embedded stack, the service, a worker, migrations, tokens."""
