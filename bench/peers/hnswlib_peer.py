"""hnswlib behind one JSON request a line, one JSON answer a line.

build:  {"do": "build", "vectors": FILE, "rows": n, "dim": d, "m": m, "ef_construction": e}
        -> {"build_s", "bytes_per_vector", "version"}
search: {"do": "search", "queries": FILE, "rows": n, "k": k, "ef": e, "ids": FILE}
        -> {"qps", "p50_us", "p99_us"}; the found ids go to FILE as little-endian uint32.

Vectors are little-endian float32 rows, of unit length; the space is inner product. One thread.
"""

import json
import sys
import time
from importlib.metadata import version

import hnswlib
import numpy as np


def rss_bytes():
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    raise RuntimeError("no VmRSS in /proc/self/status")


def call_overhead_us(dim):
    """What a call costs before any search: the median over an index of one vector."""
    index = hnswlib.Index(space="ip", dim=dim)
    index.init_index(max_elements=1)
    query = np.ones((1, dim), dtype=np.float32)
    index.add_items(query, [0], num_threads=1)
    times = []
    for _ in range(2000):
        started = time.perf_counter_ns()
        index.knn_query(query, k=1, num_threads=1)
        times.append(time.perf_counter_ns() - started)
    return float(np.median(times)) / 1000


class Peer:
    def build(self, vectors, rows, dim, m, ef_construction):
        data = np.memmap(vectors, dtype="<f4", mode="r", shape=(rows, dim))
        self.dim = dim
        self.overhead_us = call_overhead_us(dim)
        before = rss_bytes()
        started = time.perf_counter()
        self.index = hnswlib.Index(space="ip", dim=dim)
        self.index.init_index(max_elements=rows, M=m, ef_construction=ef_construction, random_seed=100)
        seconds = time.perf_counter() - started
        for first in range(0, rows, 1000):
            chunk = np.array(data[first : first + 1000])
            labels = np.arange(first, first + len(chunk))
            started = time.perf_counter()
            self.index.add_items(chunk, labels, num_threads=1)
            seconds += time.perf_counter() - started
        # Pages of the mapped file are the peer's reading, not the index's memory.
        del data
        return {
            "build_s": seconds,
            "bytes_per_vector": (rss_bytes() - before) / rows,
            "version": version("hnswlib"),
        }

    def search(self, queries, rows, k, ef, ids):
        data = np.fromfile(queries, dtype="<f4", count=rows * self.dim).reshape(rows, self.dim)
        self.index.set_ef(ef)
        # The rate is of one call for all queries, so Python is not in it; the quantiles are
        # of one call a query, with the cost of an empty call taken off.
        started = time.perf_counter()
        labels, _ = self.index.knn_query(data, k=k, num_threads=1)
        seconds = time.perf_counter() - started
        times = np.empty(rows)
        for row in range(rows):
            begun = time.perf_counter_ns()
            self.index.knn_query(data[row : row + 1], k=k, num_threads=1)
            times[row] = (time.perf_counter_ns() - begun) / 1000
        times = np.maximum(times - self.overhead_us, 0)
        labels.astype("<u4").tofile(ids)
        return {
            "qps": rows / seconds,
            "p50_us": float(np.quantile(times, 0.5)),
            "p99_us": float(np.quantile(times, 0.99)),
        }


def main():
    peer = Peer()
    verbs = {"build": peer.build, "search": peer.search}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = verbs[request.pop("do")](**request)
        except Exception as error:  # the bench prints it and stops
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
