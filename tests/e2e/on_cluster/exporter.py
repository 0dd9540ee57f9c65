"""Runs in a pod: a DCGM exporter that replays a real page, and maps its first GPU to the analyzer's pod beside it.

The real one asks the kubelet which pod has which GPU; there is no GPU here, so this one asks the API for the youngest
analyzer pod of its namespace. Once a second the page is refreshed: power and energy move on, as on a GPU that works.
"""

import os
import re
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from kubernetes import client, config

PAGE = Path("/exporter/page.prom").read_text()
PORT = int(os.environ.get("PORT", "9400"))
MAPPING = re.compile(r',(container|namespace|pod|pod_uid)="[^"]*"')


def analyzer_pod():
    pods = client.CoreV1Api().list_namespaced_pod(
        os.environ["NAMESPACE"], label_selector="app.kubernetes.io/component=analyzer"
    )
    running = [pod for pod in pods.items if pod.status.phase in ("Pending", "Running")]
    return max(running, key=lambda pod: pod.metadata.creation_timestamp, default=None)


def refreshed(pod, second):
    mapped = f',container="triton",namespace="{pod.metadata.namespace}",pod="{pod.metadata.name}"' if pod else ""
    for line in PAGE.splitlines():
        if line.startswith("#") or "{" not in line:
            yield line
            continue
        head, _, value = MAPPING.sub("", line).rpartition(" ")
        if '{gpu="0"' in head:
            head = head.replace("}", f"{mapped}}}")
        if head.startswith("DCGM_FI_DEV_POWER_USAGE"):
            value = float(value) + second % 5
        elif head.startswith("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"):
            value = int(value) + second % 100_000 * 30_000
        yield f"{head} {value}"


class Page(BaseHTTPRequestHandler):
    seen = (0, b"")

    def do_GET(self):
        second = int(time.time())
        if Page.seen[0] != second:
            text = "\n".join(refreshed(analyzer_pod(), second)) + "\n"
            Page.seen = (second, text.encode())
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(Page.seen[1])))
        self.end_headers()
        self.wfile.write(Page.seen[1])

    def log_message(self, *_):
        pass


config.load_incluster_config()
print("exporter listens on", PORT, file=sys.stderr, flush=True)
ThreadingHTTPServer(("", PORT), Page).serve_forever()
