"""The two ways in which alerts are submitted: requests of publishers (`publish`) and CAP messages (`cap`)."""
