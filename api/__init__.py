"""The HTTP door: one blueprint per resource, a client, and the `dreamq` command."""
