"""How alerts come in: as requests of publishers (`publish`), and as CAP messages (`cap`)."""
