"""Measurements of the product's promises. They print figures and never gate a test run."""
