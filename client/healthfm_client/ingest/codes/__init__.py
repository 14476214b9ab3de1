"""Codes and units: what a row of a source is called in a store, and in which unit its number is."""
