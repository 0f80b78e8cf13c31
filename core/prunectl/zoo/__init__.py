"""Names to weights: a directory, a name under a zoo root, or a Hub id."""
