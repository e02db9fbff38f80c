"""The article's search service: FastAPI, a sentence model, redis.asyncio, an index in Redis Stack.

The code of its sections 5.1 and 5.3 with its bugs fixed: it sorts by the field named in the query, uses
dialect 2, sets ef_search, decodes fields, and embeds outside the event loop (one thread, since onnxruntime
releases the GIL).

sentence-transformers needs torch, half a gigabyte and CUDA libraries. This does what its ONNX backend does
instead: the same tokenizer, the same weights in onnxruntime, mean pooling, normalisation. The graph is the
optimised one of bert_onnx.py, so it is not slower than the original.

GET /search?q=...&k=... answers {"query", "results": [{"id", "score", "content"}]}, GET /readyz 200.
"""

import argparse
import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import redis.asyncio
import uvicorn
from fastapi import FastAPI
from redis.commands.search.query import Query
from tokenizers import Tokenizer

import bert_onnx

TOKENS_MAX = 256


class Model:
    def __init__(self, model_dir, into):
        float32, _ = bert_onnx.build(model_dir, into)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(float32, options, providers=["CPUExecutionProvider"])
        self.tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(TOKENS_MAX)

    def embed(self, text):
        ids = np.array([self.tokenizer.encode(text).ids], dtype=np.int64)
        (vectors,) = self.session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        return vectors[0].astype("<f4").tobytes()


def app(model, client, index, prefix, ef):
    service = FastAPI()
    embedding = ThreadPoolExecutor(1)

    @service.get("/readyz")
    async def ready():
        await client.ping()
        return {}

    @service.get("/search")
    async def search(q: str, k: int = 5):
        vector = await asyncio.get_running_loop().run_in_executor(embedding, model.embed, q)
        query = (
            Query(f"*=>[KNN {k} @embedding $vec EF_RUNTIME $ef AS score]")
            .sort_by("score", asc=True)
            .return_fields("content", "score")
            .paging(0, k)
            .dialect(2)
        )
        found = await client.ft(index).search(query, query_params={"vec": vector, "ef": ef})
        results = [
            {"id": hit.id.removeprefix(prefix), "score": 1 - float(hit.score), "content": hit.content}
            for hit in found.docs
        ]
        return {"query": q, "results": results}

    return service


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--redis", required=True, help="URL of the Redis")
    parser.add_argument("--index", required=True)
    parser.add_argument("--prefix", required=True, help="prefix of the documents' keys")
    parser.add_argument("--ef", type=int, required=True)
    parser.add_argument("--model-dir", type=Path, required=True)
    parser.add_argument("--into", type=Path, required=True, help="directory for the composed graphs")
    given = parser.parse_args()
    client = redis.asyncio.from_url(given.redis, decode_responses=False)
    service = app(Model(given.model_dir, given.into), client, given.index, given.prefix, given.ef)
    uvicorn.run(service, host="127.0.0.1", port=given.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
