"""Measurements and descriptions of trained systems."""
