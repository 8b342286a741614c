"""HTTP load: requests prepared in files, sent in a closed or an open loop."""
