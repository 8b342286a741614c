"""PostgreSQL: one engine a service, short transactions, migrations."""
