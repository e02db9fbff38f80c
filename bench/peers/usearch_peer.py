"""usearch, by the argument over float32 ("f32"), over 8-bit integers ("i8"), or over those with the 30 nearest
rescored in float32 ("i8-rescored"; the library has no rescoring, so numpy does it here). vector_index.py describes
the protocol."""

import sys
from importlib.metadata import version

import numpy as np
from usearch.index import Index

import vector_index

# Candidates rescored per query.
RESCORED = 30
# Queries rescored in one numpy call.
TOGETHER = 32


class Usearch(vector_index.Engine):
    dtype = "f32"

    def create(self, rows):
        return Index(
            ndim=self.dim, metric="ip", dtype=self.dtype, connectivity=self.m, expansion_add=self.ef_construction
        )

    def add(self, index, vectors, first):
        keys = np.arange(first, first + len(vectors), dtype=np.uint64)
        index.add(keys, vectors, threads=1)

    def search(self, index, queries, k, ef):
        index.expansion_search = ef
        return index.search(queries, k, threads=1).keys.reshape(len(queries), k)


class I8(Usearch):
    dtype = "i8"


class I8Rescored(I8):
    fewest = RESCORED

    def create(self, rows):
        self.exact = np.empty((rows, self.dim), dtype=np.float32)
        return super().create(rows)

    def add(self, index, vectors, first):
        self.exact[first : first + len(vectors)] = vectors
        super().add(index, vectors, first)

    def search(self, index, queries, k, ef):
        candidates = super().search(index, queries, RESCORED, max(ef, RESCORED)).astype(np.int64)
        found = np.empty((len(queries), k), dtype=np.int64)
        for first in range(0, len(queries), TOGETHER):
            ids = candidates[first : first + TOGETHER]
            scores = (self.exact[ids] @ queries[first : first + TOGETHER, :, None])[:, :, 0]
            order = np.argsort(-scores, axis=1)[:, :k]
            found[first : first + TOGETHER] = np.take_along_axis(ids, order, axis=1)
        return found


if __name__ == "__main__":
    engines = {"f32": Usearch, "i8": I8, "i8-rescored": I8Rescored}
    vector_index.serve(engines[sys.argv[1]], version("usearch"))
