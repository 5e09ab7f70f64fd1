"""Data: what the user gives, read into one canonical form."""
