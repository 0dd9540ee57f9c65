"""Chores of the project: generated pages, system packages."""
