"""Code that runs inside an engine's own process, in the routing pass alone; imported by the engine, never by us."""
