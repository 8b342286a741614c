"""Starts, supervises and stops the whole system on one machine: `./start-services.sh`."""
