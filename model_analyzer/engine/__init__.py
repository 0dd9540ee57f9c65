"""The run loop and the phase driver: talks to ports only."""
