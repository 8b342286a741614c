"""Whether stock, ledger and reservations agree: `checks` on demand, `monitor` continuously."""
