"""Moving in from another tracker: its exports, read."""
