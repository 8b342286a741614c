"""supervisord and its programs: start, health, logs, and the processes themselves."""
