"""redis-py as a peer: one JSON request and one JSON answer per line.

connect:  {"do": "connect", "url": URL} -> {"version"}
command:  {"do": "command", "arguments": [...]} -> {"reply"}; bytes that are not UTF-8 are given as {"hex"}
documents: {"do": "documents", "texts": FILE, "vectors": FILE, "dim": d, "rows": n} -> {}; the
          documents to load later. The file of texts is gzipped JSONL with `text`.
load:     {"do": "load", "prefix": p, "first": a, "last": b, "batch": n} -> {"seconds", "cpu_s"}:
          rows a to b as the article's _store_batch writes them
pipeline: {"do": "pipeline", "prefix": p, "batch": n, "rounds": r} -> {"us_per_command"}: median time
          of HSET of small documents, alone (n = 1) or in pipelines of n
knn:      {"do": "knn", "index": i, "prefix": p, "queries": FILE, "rows": n, "dim": d, "k": k,
          "ef": e, "in_flight": f, "ids": FILE} -> {"seconds", "cpu_s"}: redis.asyncio; the ids
          found are written to FILE as little-endian uint32, k per query, padded with 4294967295

Vectors are little-endian float32 rows; `cpu_s` is the processor time of this whole process, user
and system. With --hiredis it uses hiredis for parsing and packing, otherwise redis-py's own code.
"""

import asyncio
import gzip
import itertools
import json
import math
import sys
import time

import numpy as np

if "--hiredis" not in sys.argv:
    sys.modules["hiredis"] = None  # makes its import fail, as if it were not installed

import redis
import redis.asyncio
from redis.commands.search.query import Query

NONE = 0xFFFFFFFF


def plain(value):
    """Converts a reply to JSON types."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"hex": value.hex()}
    if isinstance(value, (list, tuple, set)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class Peer:
    def connect(self, url):
        self.url = url
        self.client = redis.Redis.from_url(url)
        self.client.ping()
        return {"version": redis.__version__}

    def command(self, arguments):
        return {"reply": plain(self.client.execute_command(*arguments))}

    def documents(self, texts, vectors, dim, rows):
        with gzip.open(texts, "rt", encoding="utf-8") as lines:
            self.texts = [json.loads(line)["text"] for line in itertools.islice(lines, rows)]
        self.vectors = np.fromfile(vectors, dtype="<f4", count=rows * dim).reshape(rows, dim)
        return {}

    def load(self, prefix, first, last, batch):
        started, cpu = time.perf_counter(), time.process_time()
        for start in range(first, last, batch):
            pipe = self.client.pipeline(transaction=False)
            for row in range(start, min(start + batch, last)):
                pipe.hset(
                    f"{prefix}{row}",
                    mapping={"content": self.texts[row], "embedding": self.vectors[row].tobytes()},
                )
            pipe.execute()
        return {"seconds": time.perf_counter() - started, "cpu_s": time.process_time() - cpu}

    def pipeline(self, prefix, batch, rounds):
        def fields(number):
            vector = np.array([1, number, 0, 0], dtype="<f4")
            return {"content": "a document of a few words", "embedding": vector.tobytes()}

        times = []
        for number in range(rounds):
            documents = [(f"{prefix}{number * batch + row}", fields(row)) for row in range(batch)]
            started = time.perf_counter()
            if batch == 1:
                self.client.hset(documents[0][0], mapping=documents[0][1])
            else:
                pipe = self.client.pipeline(transaction=False)
                for key, mapping in documents:
                    pipe.hset(key, mapping=mapping)
                pipe.execute()
            times.append((time.perf_counter() - started) * 1e6 / batch)
        return {"us_per_command": float(np.median(times))}

    def knn(self, index, prefix, queries, rows, dim, k, ef, in_flight, ids):
        vectors = np.fromfile(queries, dtype="<f4", count=rows * dim).reshape(rows, dim)
        found = np.full((rows, k), NONE, dtype="<u4")
        seconds, cpu_s = asyncio.run(
            ask(self.url, index, prefix, vectors, k, ef, in_flight, found)
        )
        found.tofile(ids)
        return {"seconds": seconds, "cpu_s": cpu_s}


async def ask(url, index, prefix, vectors, k, ef, in_flight, found):
    client = redis.asyncio.from_url(url, decode_responses=False)
    search = client.ft(index)
    query = (
        Query(f"*=>[KNN {k} @embedding $vec EF_RUNTIME $ef AS score]")
        .sort_by("score", asc=True)
        .return_fields("content", "score")
        .paging(0, k)
        .dialect(2)
    )
    rows = iter(range(len(vectors)))

    async def worker():
        for row in rows:
            result = await search.search(query, query_params={"vec": vectors[row].tobytes(), "ef": ef})
            for place, document in enumerate(result.docs):
                found[row, place] = int(document.id.removeprefix(prefix))

    # Connect before the measurement starts.
    await asyncio.gather(*(client.ping() for _ in range(in_flight)))
    started, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    spent = time.perf_counter() - started, time.process_time() - cpu
    await client.aclose()
    return spent


def main():
    peer = Peer()
    verbs = {
        "connect": peer.connect,
        "command": peer.command,
        "documents": peer.documents,
        "load": peer.load,
        "pipeline": peer.pipeline,
        "knn": peer.knn,
    }
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = verbs[request.pop("do")](**request)
        except Exception as error:  # the benchmark prints it and stops
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
