"""The checks of `chimera doctor`: everything that must hold before a worker starts, and while it runs.

The checks ask the servers and change nothing; `barriers` alone has a mend.
"""
