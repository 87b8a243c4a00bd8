"""The work on Ray: scan, pack and verify; plain functions on values, run by one executor."""
