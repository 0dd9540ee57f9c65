"""What can be missing, said to people."""


class ClusterError(Exception):
    """Why there is no cluster; one line a cause."""
