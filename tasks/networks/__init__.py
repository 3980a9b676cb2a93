"""Builders of networks: `build_*()` functions, and the pretrained ImageNet networks by name."""
