"""The world outside: each third-party client stands behind one adapter."""
