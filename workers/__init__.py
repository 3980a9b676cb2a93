"""The processes that run jobs: launcher, lease, pool child, embedded stack."""
