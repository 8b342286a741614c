"""Orders: accepted, stored with their events, settled by what inventory decided."""
