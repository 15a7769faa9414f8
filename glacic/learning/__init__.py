"""Road 2: a packet becomes a decision. Pure: no sockets, no wall clock, no threads but the writer's."""
