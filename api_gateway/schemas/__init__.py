"""What the API reads and returns; the OpenAPI document is generated from it."""
