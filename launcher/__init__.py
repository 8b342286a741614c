"""Starts, watches and stops the whole system on one machine: what `./start-services.sh` runs."""
