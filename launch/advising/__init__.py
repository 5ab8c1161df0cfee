"""Advises on the method before training: candidates, pilot, costs and the page."""
