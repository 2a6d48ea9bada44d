"""Rows for files: which tables and columns there are, who may see them, and how they are read in constant memory."""
