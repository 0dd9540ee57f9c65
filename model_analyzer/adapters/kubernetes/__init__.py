"""The Kubernetes API: exporter discovery, annotations, fetching of results."""
