"""The table of contents: every kind of job, by name."""

from shared.kinds.base import JobParams

KINDS: dict[str, type[JobParams]] = {}
