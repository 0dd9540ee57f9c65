"""One node: its network, its configuration, its processes; up and down as often as one likes."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .errors import ClusterError
from .images import PAUSE, write_pause
from .programs import programs

NAME = "node-a"
# A network namespace of the node's own: nothing of the machine's network is changed but one pair of interfaces.
NETNS, OUTSIDE, INSIDE = "ma-node", "ma-node0", "ma-node1"
GATEWAY, ADDRESS, NETWORK = "10.200.0.1", "10.200.0.2", 24
PODS, SERVICES = "10.88.0.0/16", "10.96.0.0/16"
TOKEN = "test-cluster-admin"
SOCKET = Path("/run/model-analyzer-node/containerd.sock")
PLUGINS = Path("/usr/lib/cni")
START_S, STOP_S = 120.0, 20.0
# In the order in which they start; they end in the opposite one, but for the containers between kubelet and containerd.
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


class Node:
    """The cluster's only node, under a folder of its own."""

    def __init__(self, home: Path = Path("/var/tmp/model-analyzer-node")) -> None:
        self.home = home
        self.kubeconfig = home / "kubeconfig"
        self._programs = Path()

    # -- up ------------------------------------------------------------------------------------------------

    def up(self) -> None:
        """Bring it up, or find it up. Raises ClusterError."""
        with self._alone():
            self._up()

    def _up(self) -> None:
        if self.answers():
            self._programs = programs()
            return
        _check_machine()
        self._programs = programs()
        self.down()
        for name in ("log", "pid", "cni", "volumes"):
            (self.home / name).mkdir(parents=True, exist_ok=True)
        SOCKET.parent.mkdir(parents=True, exist_ok=True)
        _network()
        for name, text in self._files():
            (self.home / name).write_text(text)
        self._keys()
        self._containerd()
        self._control_plane()
        self._node()

    def answers(self) -> bool:
        """Whether the cluster is up and its node ready."""
        if not self.kubeconfig.exists() or not all(
            self._alive(name) for name in ("kubelet", "containerd", *CONTROL_PLANE)
        ):
            return False
        return self._node_ready()

    def load(self, *archives: Path) -> None:
        """Import docker-archives, each only when it changed. Raises ClusterError."""
        with self._alone():
            for archive in archives:
                stamp = self.home / "images" / archive.name
                if stamp.exists():
                    continue
                self._ctr("images", "import", str(archive))
                stamp.parent.mkdir(exist_ok=True)
                for older in stamp.parent.glob(f"{archive.name.rpartition('-')[0]}-*"):
                    older.unlink()
                stamp.touch()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time changes the node; whoever comes second finds it done."""
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def kubectl(self, *arguments: str) -> str:
        """What kubectl prints. Raises ClusterError."""
        return _output([str(programs() / "kubectl"), "--kubeconfig", str(self.kubeconfig), *arguments])

    def _containerd(self) -> None:
        self._start("containerd", ["containerd", "-c", str(self.home / "containerd.toml")])
        self._await("containerd", lambda: SOCKET.exists() and self._ctr_answers())
        archive = self.home / "pause.tar"
        write_pause(self._programs / "pause", archive)
        self._ctr("images", "import", str(archive))

    def _control_plane(self) -> None:
        for name in CONTROL_PLANE:
            self._start(name, [str(self._programs / "node"), name, *self._flags(name)])
            if name == "kube-apiserver":
                self._await(name, self._api_ready)

    def _node(self) -> None:
        for name in ("kubelet", "kube-proxy"):
            self._start(name, [str(self._programs / "node"), name, *self._flags(name)])
        module = ["-m", f"{__package__}.volumes"]
        arguments = [str(self.kubeconfig), str(self.home / "volumes"), NAME]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self._start("volumes", [sys.executable, *module, *arguments], environment)
        self._await("kubelet", self._node_ready)
        self._await("volumes", lambda: "limited" in self.kubectl("get", "storageclass", "-o", "name"))
        self._await("kube-controller-manager", lambda: self._has_account("default"))

    def _has_account(self, namespace: str) -> bool:
        """Pods need the account that the controller manager makes a moment after the namespace."""
        return "default" in self.kubectl("-n", namespace, "get", "serviceaccount", "-o", "name")

    # -- down ----------------------------------------------------------------------------------------------

    def down(self) -> None:
        """End every process of it and take its network away; images stay. Safe to call at any time."""
        for name in ("volumes", "kube-proxy", "kubelet", *reversed(CONTROL_PLANE[1:])):
            self._stop(name)
        if self._alive("containerd"):
            for task in self._tasks():
                subprocess.run(
                    [*self._client(), "task", "kill", "--signal", "SIGKILL", task], capture_output=True, check=False
                )
        self._stop("containerd")
        self._stop("etcd")
        for task in (self.home / "containerd" / "state" / "io.containerd.runtime.v2.task" / "k8s.io").glob("*"):
            _end_shim(task)
        _unmount_below(self.home / "kubelet", self.home / "volumes", self.home / "containerd" / "state")
        for name in ("etcd", "kubelet", "volumes", "certs"):
            shutil.rmtree(self.home / name, ignore_errors=True)
        self.kubeconfig.unlink(missing_ok=True)
        SOCKET.unlink(missing_ok=True)
        subprocess.run(["ip", "netns", "delete", NETNS], capture_output=True, check=False)
        subprocess.run(["ip", "link", "delete", OUTSIDE], capture_output=True, check=False)

    def _tasks(self) -> list[str]:
        done = subprocess.run([*self._client(), "task", "ls", "-q"], capture_output=True, text=True, check=False)
        return done.stdout.split()

    # -- processes -----------------------------------------------------------------------------------------

    def _start(self, name: str, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
        # Not `ip netns exec`: that mounts /sys anew, and the kubelet then finds no cgroups.
        entered = ["nsenter", f"--net=/run/netns/{NETNS}", *command]
        with (self.home / "log" / name).open("wb") as log:
            process = subprocess.Popen(
                entered, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=environment
            )
        (self.home / "pid" / name).write_text(f"{process.pid} {_born(process.pid)}")

    def _pid(self, name: str) -> int | None:
        """Of a process of ours that runs: a number used again by another process is not it."""
        try:
            pid, born = (self.home / "pid" / name).read_text().split()
        except (OSError, ValueError):
            return None
        return int(pid) if _born(int(pid)) == born else None

    def _alive(self, name: str) -> bool:
        return self._pid(name) is not None

    def _stop(self, name: str) -> None:
        pid = self._pid(name)
        if pid is not None:
            _end(pid)
        (self.home / "pid" / name).unlink(missing_ok=True)

    def _await(self, name: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if not self._alive(name):
                break
            try:
                if ready():
                    return
            except ClusterError:
                pass
            time.sleep(0.25)
        log = (self.home / "log" / name).read_text(errors="replace").splitlines()[-12:]
        happened = f"is not ready after {START_S:g} s" if self._alive(name) else "ended"
        raise ClusterError(f"{name} {happened}; its log ({self.home / 'log' / name}) ends:\n" + "\n".join(log))

    def _client(self) -> list[str]:
        return ["ctr", "-a", str(SOCKET), "-n", "k8s.io"]

    def _ctr(self, *arguments: str) -> str:
        return _output([*self._client(), *arguments])

    def _ctr_answers(self) -> bool:
        self._ctr("version")
        return True

    def _api_ready(self) -> bool:
        request = urllib.request.Request(f"https://{ADDRESS}:6443/readyz", headers={"Authorization": f"Bearer {TOKEN}"})
        try:
            with urllib.request.urlopen(request, timeout=2, context=ssl._create_unverified_context()) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _node_ready(self) -> bool:
        try:
            nodes = json.loads(self.kubectl("get", "nodes", "-o", "json", "--request-timeout=5s"))["items"]
        except ClusterError:
            return False
        conditions = [each for node in nodes for each in node["status"]["conditions"]]
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    # -- configuration -------------------------------------------------------------------------------------

    def _keys(self) -> None:
        key, public = self.home / "sa.key", self.home / "sa.pub"
        if not public.exists():
            _output(["openssl", "genrsa", "-out", str(key), "2048"])
            _output(["openssl", "rsa", "-in", str(key), "-pubout", "-out", str(public)])

    def _flags(self, name: str) -> list[str]:
        home = self.home
        kubeconfig = f"--kubeconfig={self.kubeconfig}"
        return {
            "etcd": [
                f"--data-dir={home / 'etcd'}",
                "--unsafe-no-fsync",
                "--listen-client-urls=http://127.0.0.1:2379",
                "--advertise-client-urls=http://127.0.0.1:2379",
                "--listen-peer-urls=http://127.0.0.1:2380",
            ],
            "kube-apiserver": [
                "--etcd-servers=http://127.0.0.1:2379",
                f"--service-cluster-ip-range={SERVICES}",
                f"--advertise-address={ADDRESS}",
                "--bind-address=0.0.0.0",
                "--secure-port=6443",
                f"--cert-dir={home / 'certs'}",
                f"--service-account-key-file={home / 'sa.pub'}",
                f"--service-account-signing-key-file={home / 'sa.key'}",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--token-auth-file={home / 'tokens.csv'}",
                "--authorization-mode=RBAC",
                # `kubectl logs` would look the node's name up, and hang.
                "--kubelet-preferred-address-types=InternalIP",
            ],
            "kube-controller-manager": [
                kubeconfig,
                f"--service-account-private-key-file={home / 'sa.key'}",
                f"--root-ca-file={home / 'certs' / 'apiserver.crt'}",
                "--leader-elect=false",
            ],
            "kube-scheduler": [kubeconfig, "--leader-elect=false"],
            "kubelet": [
                kubeconfig,
                f"--config={home / 'kubelet.json'}",
                f"--root-dir={home / 'kubelet'}",
                f"--hostname-override={NAME}",
                f"--node-ip={ADDRESS}",
            ],
            "kube-proxy": [f"--config={home / 'proxy.json'}"],
        }[name]

    def _files(self) -> Iterator[tuple[str, str]]:
        yield "tokens.csv", f'{TOKEN},admin,admin,"system:masters"\n'
        yield "containerd.toml", self._containerd_config()
        bridge = {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]},
        }
        yield "cni/10-bridge.conflist", json.dumps({"cniVersion": "0.4.0", "name": "bridge", "plugins": [bridge]})
        yield "kubeconfig", json.dumps(_kubeconfig(self.home / "certs" / "apiserver.crt"))
        yield "kubelet.json", json.dumps(_kubelet())
        yield "proxy.json", json.dumps(_proxy(self.kubeconfig))

    def _containerd_config(self) -> str:
        folder = self.home / "containerd"
        return f"""version = 2
root = "{folder / "root"}"
state = "{folder / "state"}"
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  # A machine that is a sandbox itself may not lower oom_score_adj, and no pod would start.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{PLUGINS}"
    conf_dir = "{self.home / "cni"}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
"""


def _kubeconfig(authority: Path) -> dict[str, object]:
    """authority: the API server's own certificate, which it makes at its first start."""
    cluster = {"server": f"https://{ADDRESS}:6443", "certificate-authority": str(authority)}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "node", "cluster": cluster}],
        "users": [{"name": "admin", "user": {"token": TOKEN}}],
        "contexts": [{"name": "node", "context": {"cluster": "node", "user": "admin"}}],
        "current-context": "node",
    }


def _kubelet() -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "cgroupfs",
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        # Reachable from the node's own network only.
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "failSwapOn": False,
        # cgroup v1 is refused from Kubernetes 1.35 on; machines that run CI still have it.
        "failCgroupV1": False,
        "enforceNodeAllocatable": [],
        "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "100Mi"},
        # Images come by import only: one that is collected is gone.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "localStorageCapacityIsolation": False,
        "resolvConf": "/etc/resolv.conf",
        "syncFrequency": "5s",
    }


def _proxy(kubeconfig: Path) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "clusterCIDR": PODS,
        "hostnameOverride": NAME,
        "mode": "iptables",
        # A sandbox may not set the kernel's connection limits.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpCloseWaitTimeout": "0s", "tcpEstablishedTimeout": "0s"},
    }


def _check_machine() -> None:
    """Raises ClusterError with everything that is missing."""
    if os.geteuid() != 0:
        raise ClusterError("only root may start a node; run as root, or set KUBECONFIG to a cluster that runs")
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    os.environ["PATH"] = path
    tools = ("containerd", "ctr", "runc", "ip", "iptables", "conntrack", "nsenter", "openssl", "mount")
    missing = [tool for tool in tools if shutil.which(tool, path=path) is None]
    missing += [
        str(PLUGINS / plugin) for plugin in ("bridge", "host-local", "loopback") if not (PLUGINS / plugin).exists()
    ]
    if missing:
        raise ClusterError(f"the node needs {', '.join(missing)}; run scripts/system-deps.sh --cluster")
    if not any(Path("/sys/fs/cgroup", name).exists() for name in ("memory", "cgroup.controllers")):
        raise ClusterError("/sys/fs/cgroup has no memory controller; mount the cgroups of this machine")


def _network() -> None:
    """Raises ClusterError where namespaces or interfaces cannot be made here."""
    inside = ["ip", "-n", NETNS]
    for command in (
        ["ip", "netns", "add", NETNS],
        ["ip", "link", "add", OUTSIDE, "type", "veth", "peer", "name", INSIDE, "netns", NETNS],
        ["ip", "address", "add", f"{GATEWAY}/{NETWORK}", "dev", OUTSIDE],
        ["ip", "link", "set", OUTSIDE, "up"],
        [*inside, "link", "set", "lo", "up"],
        [*inside, "address", "add", f"{ADDRESS}/{NETWORK}", "dev", INSIDE],
        [*inside, "link", "set", INSIDE, "up"],
        [*inside, "route", "add", "default", "via", GATEWAY],
        # A namespace has its own copy of it, and pods reach Services only when it forwards.
        ["nsenter", f"--net=/run/netns/{NETNS}", "sysctl", "-qw", "net.ipv4.ip_forward=1"],
    ):
        _output(command)


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(command[:6])}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def _born(pid: int) -> str | None:
    """The start time of a process that runs, in clock ticks since boot; None: there is none, or it is a zombie."""
    try:
        fields = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def _end(pid: int) -> None:
    born = _born(pid)
    for signum, seconds in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, 5.0)):
        try:
            os.kill(pid, signum)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if _born(pid) != born:
                return
            time.sleep(0.05)


def _end_shim(task: Path) -> None:
    """A shim outlives containerd, on purpose; the container's first process ends it."""
    with_pid = task / "init.pid"
    if with_pid.exists() and with_pid.read_text().isdigit():
        _end(int(with_pid.read_text()))


def _unmount_below(*folders: Path) -> None:
    places = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    ours = [place for place in places if any(f"{place}/".startswith(f"{folder}/") for folder in folders)]
    for place in sorted(ours, reverse=True):
        subprocess.run(["umount", "--lazy", place], capture_output=True, check=False)
