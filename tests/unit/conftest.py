"""Settings of the property tests."""

from hypothesis import settings

# The machine may be busy with other tests: the time of one example means nothing.
settings.register_profile("unit", deadline=None)
settings.load_profile("unit")
