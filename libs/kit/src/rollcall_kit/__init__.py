"""The runtime that all services share: settings, logs, broker, database, event log, main loop."""
