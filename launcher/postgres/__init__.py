"""The embedded PostgreSQL: its server, the user it runs as, and a probe for any database."""
