"""Tries to make the pipeline lose or repeat an event: kills, freezes, restarts and cuts, under a load that goes on."""
