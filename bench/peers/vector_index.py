"""Common code of the vector index peers: one JSON request and one JSON answer per line.

build:  {"do": "build", "vectors": FILE, "rows": n, "dim": d, "m": m, "ef_construction": e}
        -> {"version", "m", "ef_construction", "build_s", "bytes_per_vector"}; m and ef_construction
        are the values that were used.
search: {"do": "search", "queries": FILE, "rows": n, "first": f, "step": s, "k": k, "ef": e,
         "ids": FILE, "one_by_one": true}
        -> {"qps", "p50_us", "p99_us"}; the ids found are written to FILE as little-endian uint32.
        Every s-th of the n queries is used, starting with number f. The quantiles are null unless one_by_one.

Vectors are little-endian float32 rows, of unit length. One thread.
"""

import ctypes
import json
import sys
import time

import numpy as np

# Queries before the measurement, to warm up the caches of this core.
WARM_UP = 100
# Vectors added in one call.
CHUNK = 1000


class Engine:
    """One library with one vector format. A subclass may override `m` and `ef_construction`."""

    # Vectors in the smallest index that can be searched.
    fewest = 1
    takes_all_at_once = False

    def __init__(self, dim, m, ef_construction):
        self.dim = dim
        self.m = m
        self.ef_construction = ef_construction

    def create(self, rows):
        """Creates an index for this many vectors."""
        raise NotImplementedError

    def train(self, index, vectors):
        """Trains the index with all vectors before any is added, if it needs that."""

    def add(self, index, vectors, first):
        """Adds vectors, numbered from `first`."""
        raise NotImplementedError

    def search(self, index, queries, k, ef):
        """The numbers of the k nearest vectors of each query, as an array, in one call of the library."""
        raise NotImplementedError


def private_bytes():
    """Anonymous memory of this process, after returning freed memory to the system."""
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    raise RuntimeError("no RssAnon in /proc/self/status")


def call_overhead_us(engine):
    """The overhead of a call: the median time of a search of the smallest index."""
    vectors = np.eye(engine.fewest, engine.dim, dtype=np.float32)
    index = engine.create(len(vectors))
    engine.train(index, vectors)
    engine.add(index, vectors, 0)
    query = np.full((1, engine.dim), engine.dim**-0.5, dtype=np.float32)
    times = []
    for _ in range(2000):
        started = time.perf_counter_ns()
        engine.search(index, query, 1, 1)
        times.append(time.perf_counter_ns() - started)
    return float(np.median(times)) / 1000


class Peer:
    def __init__(self, engine, version):
        self.engine_of = engine
        self.version = version

    def build(self, vectors, rows, dim, m, ef_construction):
        # A mapped file, whose pages are not counted as the index's memory.
        data = np.memmap(vectors, dtype="<f4", mode="r", shape=(rows, dim))
        self.engine = self.engine_of(dim, m, ef_construction)
        self.overhead_us = call_overhead_us(self.engine)
        chunk_rows = rows if self.engine.takes_all_at_once else CHUNK
        before = private_bytes()
        started = time.perf_counter()
        self.index = self.engine.create(rows)
        self.engine.train(self.index, data)
        seconds = time.perf_counter() - started
        for first in range(0, rows, chunk_rows):
            # Reading is not part of the measured time.
            chunk = np.array(data[first : first + chunk_rows])
            started = time.perf_counter()
            self.engine.add(self.index, chunk, first)
            seconds += time.perf_counter() - started
            del chunk
        return {
            "version": self.version,
            "m": self.engine.m,
            "ef_construction": self.engine.ef_construction,
            "build_s": seconds,
            "bytes_per_vector": (private_bytes() - before) / rows,
        }

    def search(self, queries, rows, first, step, k, ef, ids, one_by_one):
        dim = self.engine.dim
        data = np.fromfile(queries, dtype="<f4", count=rows * dim).reshape(rows, dim)
        data = np.ascontiguousarray(data[first::step])
        self.engine.search(self.index, data[:WARM_UP], k, ef)
        # The rate is measured with one call for all queries, which excludes Python; the quantiles with
        # one call per query, less the overhead of a call.
        started = time.perf_counter()
        found = self.engine.search(self.index, data, k, ef)
        seconds = time.perf_counter() - started
        found.astype("<u4").tofile(ids)
        answer = {"qps": len(data) / seconds, "p50_us": None, "p99_us": None}
        if one_by_one:
            times = np.empty(len(data))
            for row in range(len(data)):
                query = data[row : row + 1]
                begun = time.perf_counter_ns()
                self.engine.search(self.index, query, k, ef)
                times[row] = (time.perf_counter_ns() - begun) / 1000
            times = np.maximum(times - self.overhead_us, 0)
            answer["p50_us"] = float(np.quantile(times, 0.5))
            answer["p99_us"] = float(np.quantile(times, 0.99))
        return answer


def serve(engine, version):
    """Answers requests until the input ends."""
    peer = Peer(engine, version)
    verbs = {"build": peer.build, "search": peer.search}
    # Output of the library must not mix with the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = verbs[request.pop("do")](**request)
        except Exception as error:  # the benchmark prints it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)
