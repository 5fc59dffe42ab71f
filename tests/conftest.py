"""Fixtures that several rooms of the house share."""

pytest_plugins = ("tests.hub.fixtures",)
