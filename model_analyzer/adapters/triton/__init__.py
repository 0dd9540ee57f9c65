"""Triton: launch modes, model control, request encoding."""
