"""Settings of the property tests."""

from hypothesis import settings

# The machine may be busy with the other tests: how long one example takes tells nothing.
settings.register_profile("unit", deadline=None)
settings.load_profile("unit")
