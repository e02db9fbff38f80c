#!/usr/bin/env python3
"""Starts and stops a Redis Cluster on this machine: three primaries with a replica each.

The nodes run the Redis Stack of tools/redis_stack.py, which is installed first if necessary. They
listen on loopback only and keep their documents in a directory (append-only file, one fsync per
second), so a stopped cluster can be started again with its data. Starting a running cluster only
starts the nodes that are down.

    tools/redis_cluster.py start     start, and print the cluster's URL once every slot is served
                                     and every replica is connected
    tools/redis_cluster.py status    print each node with its role; exit status 1 if the cluster
                                     is not healthy
    tools/redis_cluster.py stop      stop the nodes started from the directory, no others
    tools/redis_cluster.py commands  print the commands that `start` runs, and run nothing

The nodes use --port and the ports after it, primaries first; each also listens on its port + 10,000
for the other nodes. Needs Linux on x86-64 and Python 3.9.
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

# Time for a node to start, join or stop on a busy machine, in seconds.
TIMEOUT_S = 60
POLL_S = 0.1
# Time for a node to reply before it counts as down.
REPLY_TIMEOUT_S = 5


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
        """The command of a node, without the options that `start_node` adds for this machine."""
        return [
            *[str(self.stack / "bin/redis-server"), "--port", str(port), "--bind", "127.0.0.1"],
            *["--cluster-enabled", "yes", "--cluster-node-timeout", str(self.node_timeout_ms)],
            # The other shards keep serving while one fails over.
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
        self.wait_for("a node does not reply", lambda: all(self.ask(port, "PING") == "PONG" for port in self.ports))
        if all(self.known_nodes(port) == 1 for port in self.ports):
            done = self.run(self.join_command(), TIMEOUT_S)
            if done.returncode != 0:
                sys.exit(f"the cluster could not be created: {(done.stderr or done.stdout).strip()}")
        self.wait_for("the cluster is not healthy", lambda: not self.problems())

    def start_node(self, port: int) -> None:
        if self.ask(port, "PING") is not None:
            sys.exit(f"port {port} is used by a server that was not started from {self.directory}: choose another --port")
        directory = self.node_directory(port)
        directory.mkdir(parents=True, exist_ok=True)
        command = [*self.node_command(port), "--dir", str(directory), "--daemonize", "yes"]
        command += ["--pidfile", str(directory / "redis.pid"), "--logfile", str(directory / "redis.log")]
        done = self.run(command, TIMEOUT_S)
        if done.returncode != 0:
            sys.exit(f"the node on port {port} did not start: {(done.stderr or done.stdout).strip()}")

    def stop(self) -> None:
        # Includes nodes started with another --port.
        ports = sorted(int(node.name) for node in self.directory.glob("*") if node.name.isdigit())
        pids = [pid for pid in map(self.process, ports) if pid is not None]
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
            # A suspended process (SIGSTOP) must run again to receive SIGTERM.
            os.kill(pid, signal.SIGCONT)
        deadline = time.monotonic() + TIMEOUT_S
        while any(self.process(port) is not None for port in ports):
            if time.monotonic() > deadline:
                for pid in filter(None, map(self.process, ports)):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(POLL_S)
        print(f"{len(pids)} nodes stopped; their documents remain in {self.directory}")

    def status(self) -> None:
        for port in self.ports:
            role = self.replication(port).get("role")
            role = {"master": "primary", "slave": "replica"}.get(role, "does not reply")
            print(f"127.0.0.1:{port}  {role}  process {self.process(port) or '-'}")
        problems = self.problems()
        if problems:
            sys.exit("\n".join(problems))
        print(self.url())

    def problems(self) -> list[str]:
        """What is wrong with the cluster; empty if it is healthy."""
        problems = []
        replicas = 0
        for port in self.ports:
            info = self.pairs(port, "CLUSTER", "INFO")
            if info.get("cluster_state") != "ok":
                problems.append(f"127.0.0.1:{port}: cluster_state {info.get('cluster_state', 'unknown')}")
            elif info.get("cluster_known_nodes") != str(len(self.ports)):
                problems.append(f"127.0.0.1:{port} knows {info.get('cluster_known_nodes')} nodes of {len(self.ports)}")
            replication = self.replication(port)
            if replication.get("role") == "slave":
                replicas += 1
                if replication.get("master_link_status") != "up":
                    problems.append(f"127.0.0.1:{port} is not connected to its primary")
        if not problems and replicas != self.primaries * self.replicas:
            problems.append(f"{replicas} replicas instead of {self.primaries * self.replicas}")
        return problems

    def wait_for(self, failure: str, condition) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            if time.monotonic() > deadline:
                logs = self.directory / "*/redis.log"
                sys.exit("\n".join([f"{failure} after {TIMEOUT_S} s; see {logs}", *self.problems()]))
            time.sleep(POLL_S)

    def known_nodes(self, port: int) -> int:
        return int(self.pairs(port, "CLUSTER", "INFO").get("cluster_known_nodes", 0))

    def replication(self, port: int) -> dict[str, str]:
        return self.pairs(port, "INFO", "replication")

    def pairs(self, port: int, *words: str) -> dict[str, str]:
        """The `name:value` lines of a reply; empty if the node does not reply."""
        lines = (self.ask(port, *words) or "").splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def ask(self, port: int, *words: str) -> "str | None":
        """A node's reply; `None` if it does not reply."""
        command = [str(self.stack / "bin/redis-cli"), "-h", "127.0.0.1", "-p", str(port), *words]
        try:
            done = self.run(command, REPLY_TIMEOUT_S)
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
        """Runs a program of the Redis Stack."""
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
    parser.add_argument("--dir", type=Path, default=ROOT / "target/redis-cluster", help="directory of the nodes' files (default target/redis-cluster)")
    parser.add_argument("--stack", type=Path, default=ROOT / "target/redis-stack", help="directory of the Redis Stack (default target/redis-stack)")
    parser.add_argument("--port", type=int, default=7001, help="port of the first node (default 7001)")
    parser.add_argument("--primaries", type=int, default=3, help="number of primaries, at least 3 (default 3)")
    parser.add_argument("--replicas", type=int, default=1, help="replicas per primary (default 1)")
    parser.add_argument("--node-timeout-ms", type=int, default=5000, help="time after which a silent node counts as failed (default 5000)")
    options = parser.parse_args()
    if options.primaries < 3 or options.replicas < 0:
        parser.error("--primaries must be at least 3 and --replicas at least 0")

    cluster = Cluster(options)
    if not 1024 <= cluster.ports[0] <= cluster.ports[-1] <= 65535 - 10000:
        parser.error("ports must be 1024 to 55535: each node also listens on its port + 10000")
    if options.action == "start":
        install = [sys.executable, str(ROOT / "tools/redis_stack.py"), "--into", str(cluster.stack)]
        if subprocess.run(install, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False).returncode != 0:
            sys.exit("the Redis Stack could not be installed")
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
