"""Consistency of orders: with themselves, with their events, and with what inventory decided."""
