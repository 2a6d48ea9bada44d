"""What if: stored conversions and clicks decided again by changed rules, and nothing written."""
