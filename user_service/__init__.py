"""Accounts: registration, passwords, refresh tokens."""
