"""Probes instances by HTTP or TCP and reports changes of health."""
