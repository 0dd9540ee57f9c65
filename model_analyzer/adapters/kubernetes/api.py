"""A connection to the Kubernetes API: the one place where its client is imported, and only when it is used.

Every call is bounded in time and tried once; what goes wrong is one line that says what is missing and how to grant it.
"""

from __future__ import annotations

import json
import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_analyzer.errors import AnalyzerError, Fault

# Seconds for the connection, and for each wait for bytes after that.
CONNECT_S, READ_S = 3.0, 5.0
TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
# The API server's own words, apiserver/pkg/endpoints/handlers/responsewriters/errors.go.
_FORBIDDEN = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\S+) resource "(?P<resource>[^"]*)"'
    r'(?: in API group "(?P<group>[^"]*)")?(?: in the namespace "(?P<namespace>[^"]*)"| at the cluster scope)?'
)
_SERVICE_ACCOUNT = re.compile(r"system:serviceaccount:([^:]+):(.+)")


class KubernetesError(AnalyzerError):
    """The Kubernetes API cannot be reached, or does not let us do something. `status`: of its reply; None without one."""

    exit_code = 3
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Api:
    """A connection. core: CoreV1Api; batch: BatchV1Api; client: what both speak through; server: its URL.

    namespace: the kubeconfig context's, or the pod's own.
    """

    core: Any
    batch: Any
    client: Any
    server: str
    namespace: str

    def close(self) -> None:
        """Free the connection."""
        self.client.close()
        # It closes its threads only; the sockets would stay until they are collected.
        self.client.rest_client.pool_manager.clear()


def connect(context: str | None = None, kubeconfig: str | None = None) -> Api:
    """Read the configuration; no call is made yet. Raises KubernetesError.

    A kubeconfig that is named (here, by a context or by KUBECONFIG) comes before the service account of a pod, that
    before ~/.kube/config.
    """
    client, config = _modules()
    settings = client.Configuration()
    kubeconfig = kubeconfig or os.environ.get("KUBECONFIG")
    try:
        if kubeconfig or context or not in_cluster():
            config.load_kube_config(kubeconfig, context, settings, persist_config=False)
            namespace = _context_namespace(config, kubeconfig, context)
        else:
            if not TOKEN.exists():
                raise _no_token()
            config.load_incluster_config(settings)
            namespace = TOKEN.with_name("namespace").read_text(encoding="utf-8").strip()
    except (config.ConfigException, OSError, ValueError) as error:
        where = kubeconfig or ("service account" if in_cluster() else "kubeconfig")
        fix = "name a kubeconfig by KUBECONFIG, or run in a pod with a service account token"
        raise KubernetesError(where, _plain(error), fix) from error
    if not settings.verify_ssl:
        # The kubeconfig says so (insecure-skip-tls-verify); a warning with every call tells its owner nothing new.
        from urllib3 import disable_warnings, exceptions

        disable_warnings(exceptions.InsecureRequestWarning)
    # One try a call: who asks again, and when, is for the caller to say.
    settings.retries = False
    connection = _bounded(client.ApiClient(settings))
    return Api(client.CoreV1Api(connection), client.BatchV1Api(connection), connection, settings.host, namespace)


def _modules() -> tuple[Any, Any]:
    """The client's modules, which have no types worth the name."""
    from kubernetes import client, config

    return client, config


def in_cluster() -> bool:
    """Whether this is a pod: the kubelet says where the API is."""
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST"))


@contextmanager
def explained() -> Iterator[None]:
    """Turn whatever the client raises for a call into a KubernetesError."""
    from kubernetes.client.exceptions import OpenApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    # ValueError: what answers there is no API server, or a proxy before it.
    except (OpenApiException, HTTPError, OSError, ValueError) as error:
        fault = _fault(error)
        explained = KubernetesError(fault.where, fault.what, fault.fix)
        explained.status = getattr(error, "status", None) or None
        raise explained from error


def _no_token() -> KubernetesError:
    what = f"no service account token is mounted at {TOKEN}"
    fix = "set automountServiceAccountToken: true in the pod (the chart mounts one where dcgm.discovery or annotateJob is on)"
    return KubernetesError("kubernetes API", what, fix)


def _bounded(connection: Any) -> Any:
    """Give every call a timeout: the client's own default is to wait for ever."""
    request = connection.rest_client.request

    def bounded(*args: Any, **kwargs: Any) -> Any:
        kwargs["_request_timeout"] = kwargs.get("_request_timeout") or (CONNECT_S, READ_S)
        return request(*args, **kwargs)

    connection.rest_client.request = bounded
    return connection


def _context_namespace(config: Any, kubeconfig: str | None, context: str | None) -> str:
    contexts, active = config.list_kube_config_contexts(kubeconfig)
    chosen = next((one for one in contexts if one["name"] == context), active)
    return str(chosen["context"].get("namespace") or "default")


def _fault(error: Exception) -> Fault:
    status = getattr(error, "status", None)
    if isinstance(status, int) and status:
        return _refusal(status, _message(error))
    cause = _cause(error)
    server = "kubernetes API"
    if isinstance(cause, ssl.SSLError) or "SSL" in type(cause).__name__:
        fix = "the CA of the kubeconfig or of the service account must be the API server's"
        return Fault(server, f"TLS failed ({_plain(cause)})", fix)
    text = _plain(cause)
    if "Timeout" in type(cause).__name__ or isinstance(cause, TimeoutError):
        return Fault(
            server, f"no answer in time ({text})", "check the API server, and NetworkPolicies on the way to it"
        )
    return Fault(
        server, f"cannot be reached ({text})", "check the API server's address, and NetworkPolicies on the way"
    )


def _refusal(status: int, message: str) -> Fault:
    if status == 401:
        fix = "the token is expired or of another cluster: renew it"
        return Fault("kubernetes API", f"the credentials are not accepted (HTTP 401: {message})", fix)
    denied = _FORBIDDEN.search(message) if status == 403 else None
    if denied is None:
        return Fault("kubernetes API", f"HTTP {status}: {message}", "see the API server's message")
    user = _SERVICE_ACCOUNT.sub(r"service account \1/\2", denied["user"])
    resource = f"{denied['resource']}.{denied['group']}" if denied["group"] else denied["resource"]
    where, role = "in all namespaces", "ClusterRole"
    if denied["namespace"]:
        where, role = f"in namespace {denied['namespace']}", "Role there"
    what = f"{user} may not {denied['verb']} {resource} {where} (HTTP 403)"
    return Fault("kubernetes API", what, f"grant it the verb {denied['verb']} on {resource} by a {role}")


def _message(error: Any) -> str:
    """The API server's own, from the Status object that it answers with."""
    body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else error.body or ""
    try:
        return _one_line(str(json.loads(body)["message"]))
    except (ValueError, KeyError, TypeError):
        return _one_line(body or str(error.reason))


def _cause(error: BaseException) -> BaseException:
    """What a chain of wrapping errors is about."""
    reason = getattr(error, "reason", None)
    if getattr(error, "status", None) == 0:  # the client's own word for a TLS failure
        reason = error.__context__
    return _cause(reason) if isinstance(reason, BaseException) else error


def _plain(error: BaseException) -> str:
    # urllib3 begins with the connection object's repr, and a colon.
    return _one_line(re.sub(r"^<?[\w.]*Connection[^:]*: ", "", str(error)) or type(error).__name__)


def _one_line(text: str, most: int = 300) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]}..."
