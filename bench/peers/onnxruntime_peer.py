"""onnxruntime as a peer: one JSON request and one JSON answer per line.

load:    {"do": "load", "model_dir": DIR, "into": DIR} -> {"version"}; composes the model if necessary
embed:   {"do": "embed", "compute": c, "tokens": FILE, "vectors": FILE, "batch": n}
         -> {}; vectors are written to FILE as little-endian float32 rows, in the order of the texts
measure: {"do": "measure", "compute": c, "tokens": FILE, "batch": n, "seconds": s}
         -> {"us_per_text"}: the median processor time of a pass over n texts, divided by n
bulk:    {"do": "bulk", "compute": c, "tokens": FILE, "batch": n} -> {"cpu_s"}: all texts once,
         sorted by length to minimise padding

`compute` is "f32" or "int8". A token file contains little-endian uint32: for each text the
number of tokens, then their ids. One thread.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime

import bert_onnx


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def texts(path):
    values = np.fromfile(path, dtype="<u4")
    found, place = [], 0
    while place < len(values):
        last = place + 1 + int(values[place])
        found.append(values[place + 1 : last])
        place = last
    return found


def inputs(batch):
    """Token ids padded to the longest text of the batch, with the attention mask."""
    width = max(len(ids) for ids in batch)
    ids = np.zeros((len(batch), width), dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, tokens in enumerate(batch):
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def batches(texts, size):
    return [texts[first : first + size] for first in range(0, len(texts), size)]


class Peer:
    def load(self, model_dir, into):
        float32, int8 = bert_onnx.build(Path(model_dir), Path(into))
        self.sessions = {"f32": session(float32), "int8": session(int8)}
        return {"version": onnxruntime.__version__}

    def embed(self, compute, tokens, vectors, batch):
        found = texts(tokens)
        order = sorted(range(len(found)), key=lambda row: len(found[row]))
        run = self.sessions[compute].run
        rows = None
        for part in batches(order, batch):
            made = run(None, inputs([found[row] for row in part]))[0]
            if rows is None:
                rows = np.empty((len(found), made.shape[1]), dtype="<f4")
            rows[part] = made
        rows.tofile(vectors)
        return {}

    def measure(self, compute, tokens, batch, seconds):
        run = self.sessions[compute].run
        feeds = [inputs(part) for part in batches(texts(tokens), batch)]
        run(None, feeds[0])
        times, until, turn = [], time.perf_counter() + seconds, 0
        while len(times) < 3 or time.perf_counter() < until:
            started = time.thread_time_ns()
            run(None, feeds[turn % len(feeds)])
            times.append((time.thread_time_ns() - started) / 1000 / batch)
            turn += 1
        return {"us_per_text": float(np.median(times))}

    def bulk(self, compute, tokens, batch):
        run = self.sessions[compute].run
        found = sorted(texts(tokens), key=len)
        feeds = [inputs(part) for part in batches(found, batch)]
        started = time.thread_time()
        for feed in feeds:
            run(None, feed)
        return {"cpu_s": time.thread_time() - started}


def main():
    peer = Peer()
    verbs = {"load": peer.load, "embed": peer.embed, "measure": peer.measure, "bulk": peer.bulk}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = verbs[request.pop("do")](**request)
        except Exception as error:  # the benchmark prints it and stops
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
