"""The job: its state machine, what may be done to it, and the ports that carry it out."""
