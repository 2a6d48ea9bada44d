"""The faults, a file for each thing that is hurt. Each does it, sees that it was felt, undoes it, and says what it saw."""
