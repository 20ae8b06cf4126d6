"""The two ways for alerts to come in: requests of publishers (`publish`) and CAP messages (`cap`)."""
