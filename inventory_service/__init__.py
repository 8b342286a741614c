"""The catalogue, the stock, and the ledger of every stock movement."""
