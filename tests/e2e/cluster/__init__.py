"""A real one-node Kubernetes for the tests, from official Go modules and Debian's containerd: no registry, no kind.

`python -m tests.e2e.cluster up` brings it up (or finds it up) and prints its kubeconfig; `down` ends it.
"""
