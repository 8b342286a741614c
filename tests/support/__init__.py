"""What the tests share: ports, waiting, infrastructure, the running system."""
