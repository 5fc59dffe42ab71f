"""Fixtures that several rooms of the house share."""

from hypothesis import settings

pytest_plugins = ("tests.hub.fixtures",)

# A test may take as long as a loaded machine needs: what is slow is measured in benchmarks/.
settings.register_profile("moe-cap", deadline=None)
settings.load_profile("moe-cap")
