"""The system to measure: started, filled with data, observed and checked."""
