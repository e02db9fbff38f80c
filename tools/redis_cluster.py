#!/usr/bin/env python3
"""Starts and stops a Redis Cluster on this machine: three primaries with a replica each.

The nodes are the Redis Stack of tools/redis_stack.py, which is installed first if it is not there,
on loopback only, and keep their documents in a directory (append-only file, one fsync a second):
started again, a stopped cluster is what it was. Starting a cluster that runs changes nothing, so it
also brings back a node that was killed.

    tools/redis_cluster.py start     prints the cluster's URL once every slot is served and every
                                     replica is linked
    tools/redis_cluster.py status    prints each node with its role; exit status 1 if the cluster
                                     does not stand
    tools/redis_cluster.py stop      ends the nodes started from the directory, no others
    tools/redis_cluster.py commands  prints what `start` runs, and runs nothing

Ports are --port and those after it, primaries first; a node talks to the others on its port +
10,000. Needs Linux on x86-64 and Python 3.9, nothing else.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# What a node may take to start, to join and to end on a busy machine, in seconds.
PATIENCE_S = 60
LOOK_S = 0.1
# What a node may take to reply before it counts as not answering.
REPLY_S = 5


class Cluster:
    def __init__(self, options: argparse.Namespace) -> None:
        self.directory: Path = options.dir.absolute()
        self.stack: Path = options.stack.absolute()
        self.primaries: int = options.primaries
        self.replicas: int = options.replicas
        self.node_timeout_ms: int = options.node_timeout_ms
        count = options.primaries * (1 + options.replicas)
        self.ports = range(options.port, options.port + count)

    def url(self) -> str:
        return "redis-cluster://" + ",".join(f"127.0.0.1:{port}" for port in self.ports[: self.primaries])

    def node_command(self, port: int) -> list[str]:
        """A node of a cluster; how it runs on this machine is `start_node`'s."""
        return [
            *[str(self.stack / "bin/redis-server"), "--port", str(port), "--bind", "127.0.0.1"],
            *["--cluster-enabled", "yes", "--cluster-node-timeout", str(self.node_timeout_ms)],
            # A shard that fails over does not silence the others.
            *["--cluster-require-full-coverage", "no"],
            *["--save", "", "--appendonly", "yes", "--appendfsync", "everysec"],
            *["--loadmodule", str(self.stack / "lib/redisearch.so")],
        ]

    def join_command(self) -> list[str]:
        nodes = [f"127.0.0.1:{port}" for port in self.ports]
        options = ["--cluster-replicas", str(self.replicas), "--cluster-yes"]
        return [str(self.stack / "bin/redis-cli"), "--cluster", "create", *nodes, *options]

    def start(self) -> None:
        for port in self.ports:
            if self.process(port) is None:
                self.start_node(port)
        self.wait_for("a node does not answer", lambda: all(self.ask(port, "PING") == "PONG" for port in self.ports))
        if all(self.known_nodes(port) == 1 for port in self.ports):
            done = self.run(self.join_command(), PATIENCE_S)
            if done.returncode != 0:
                sys.exit(f"the nodes could not be joined: {(done.stderr or done.stdout).strip()}")
        self.wait_for("the cluster does not stand", lambda: not self.troubles())

    def start_node(self, port: int) -> None:
        if self.ask(port, "PING") is not None:
            sys.exit(f"port {port} is taken by a server not of {self.directory}: choose another --port")
        directory = self.node_directory(port)
        directory.mkdir(parents=True, exist_ok=True)
        command = [*self.node_command(port), "--dir", str(directory), "--daemonize", "yes"]
        command += ["--pidfile", str(directory / "redis.pid"), "--logfile", str(directory / "redis.log")]
        done = self.run(command, PATIENCE_S)
        if done.returncode != 0:
            sys.exit(f"the node on port {port} did not start: {(done.stderr or done.stdout).strip()}")

    def stop(self) -> None:
        # Nodes of an earlier --port are the directory's, too.
        ports = sorted(int(node.name) for node in self.directory.glob("*") if node.name.isdigit())
        pids = [pid for pid in map(self.process, ports) if pid is not None]
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
            # One that is stopped (SIGSTOP) has to run to see that it shall end.
            os.kill(pid, signal.SIGCONT)
        deadline = time.monotonic() + PATIENCE_S
        while any(self.process(port) is not None for port in ports):
            if time.monotonic() > deadline:
                for pid in filter(None, map(self.process, ports)):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(LOOK_S)
        print(f"{len(pids)} nodes ended; their documents stay in {self.directory}")

    def status(self) -> None:
        for port in self.ports:
            role = self.replication(port).get("role")
            role = {"master": "primary", "slave": "replica"}.get(role, "does not answer")
            print(f"127.0.0.1:{port}  {role}  process {self.process(port) or '-'}")
        troubles = self.troubles()
        if troubles:
            sys.exit("\n".join(troubles))
        print(self.url())

    def troubles(self) -> list[str]:
        """What keeps the cluster from standing; empty when it stands."""
        troubles = []
        replicas = 0
        for port in self.ports:
            info = self.pairs(port, "CLUSTER", "INFO")
            if info.get("cluster_state") != "ok":
                troubles.append(f"127.0.0.1:{port}: cluster_state {info.get('cluster_state', 'unknown')}")
            elif info.get("cluster_known_nodes") != str(len(self.ports)):
                troubles.append(f"127.0.0.1:{port} knows {info.get('cluster_known_nodes')} nodes of {len(self.ports)}")
            replication = self.replication(port)
            if replication.get("role") == "slave":
                replicas += 1
                if replication.get("master_link_status") != "up":
                    troubles.append(f"127.0.0.1:{port} has no link to its primary")
        if not troubles and replicas != self.primaries * self.replicas:
            troubles.append(f"{replicas} replicas, not {self.primaries * self.replicas}")
        return troubles

    def wait_for(self, otherwise: str, condition) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > deadline:
                logs = self.directory / "*/redis.log"
                sys.exit("\n".join([f"{otherwise} after {PATIENCE_S} s; see {logs}", *self.troubles()]))
            time.sleep(LOOK_S)

    def known_nodes(self, port: int) -> int:
        return int(self.pairs(port, "CLUSTER", "INFO").get("cluster_known_nodes", 0))

    def replication(self, port: int) -> dict[str, str]:
        return self.pairs(port, "INFO", "replication")

    def pairs(self, port: int, *words: str) -> dict[str, str]:
        """The lines `name:value` of a reply; none if the node does not answer."""
        lines = (self.ask(port, *words) or "").splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def ask(self, port: int, *words: str) -> "str | None":
        """A node's reply; `None` if it does not answer."""
        command = [str(self.stack / "bin/redis-cli"), "-h", "127.0.0.1", "-p", str(port), *words]
        try:
            done = self.run(command, REPLY_S)
        except subprocess.TimeoutExpired:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    def process(self, port: int) -> "int | None":
        """The node's process, if it runs: that of its pid file, working in its directory."""
        directory = self.node_directory(port)
        try:
            pid = int((directory / "redis.pid").read_text(encoding="ascii"))
            return pid if Path(f"/proc/{pid}/cwd").resolve(strict=True) == directory.resolve() else None
        except (OSError, ValueError):
            return None

    def node_directory(self, port: int) -> Path:
        return self.directory / str(port)

    def run(self, command: list[str], timeout_s: float) -> "subprocess.CompletedProcess[str]":
        """Runs a program of Redis Stack."""
        environment = {**os.environ, "LD_LIBRARY_PATH": str(self.stack / "lib")}
        return subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["start", "stop", "status", "commands"])
    parser.add_argument("--dir", type=Path, default=ROOT / "target/redis-cluster", help="directory of the nodes' files")
    parser.add_argument("--stack", type=Path, default=ROOT / "target/redis-stack", help="that of tools/redis_stack.py")
    parser.add_argument("--port", type=int, default=7001, help="the first node's (default 7001)")
    parser.add_argument("--primaries", type=int, default=3, help="at least 3, the default")
    parser.add_argument("--replicas", type=int, default=1, help="of each primary (default 1)")
    parser.add_argument("--node-timeout-ms", type=int, default=5000, help="a node silent so long failed (default 5000)")
    options = parser.parse_args()
    if options.primaries < 3 or options.replicas < 0:
        parser.error("a Redis Cluster has at least 3 primaries and no negative number of replicas")

    cluster = Cluster(options)
    if not 1024 <= cluster.ports[0] <= cluster.ports[-1] <= 65535 - 10000:
        parser.error("ports are from 1024 to 55535: a node also listens on its port + 10000")
    if options.action == "start":
        install = [sys.executable, str(ROOT / "tools/redis_stack.py"), "--into", str(cluster.stack)]
        if subprocess.run(install, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False).returncode != 0:
            sys.exit("Redis Stack could not be installed")
        cluster.start()
        print(cluster.url())
    elif options.action == "stop":
        cluster.stop()
    elif options.action == "status":
        cluster.status()
    else:
        for port in cluster.ports:
            print(shlex.join(cluster.node_command(port)))
        print(shlex.join(cluster.join_command()))


if __name__ == "__main__":
    main()
