"""Telemetry sources: Triton's metrics page, DCGM exporters, the host."""
