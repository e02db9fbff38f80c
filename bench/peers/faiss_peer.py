"""faiss's HNSW, by the argument over float32 ("flat"), over 8-bit codes with one range per dimension ("sq8"), or
over those with the nearest rescored in float32 ("sq8-rescored"). vector_index.py describes the protocol."""

import sys
from importlib.metadata import version

import faiss
import numpy as np

import vector_index

# Candidates rescored, as a multiple of k.
RESCORED = 3


class Flat(vector_index.Engine):
    def create(self, rows):
        return self.with_ef_construction(faiss.IndexHNSWFlat(self.dim, self.m, faiss.METRIC_INNER_PRODUCT))

    def with_ef_construction(self, index):
        index.hnsw.efConstruction = self.ef_construction
        return index

    def train(self, index, vectors):
        index.train(np.array(vectors))

    def add(self, index, vectors, first):
        index.add(vectors)

    def search(self, index, queries, k, ef):
        index.hnsw.efSearch = ef
        return index.search(queries, k)[1]


class Sq8(Flat):
    def create(self, rows):
        kind = faiss.ScalarQuantizer.QT_8bit
        return self.with_ef_construction(faiss.IndexHNSWSQ(self.dim, kind, self.m, faiss.METRIC_INNER_PRODUCT))


class Sq8Rescored(Sq8):
    def create(self, rows):
        # The outer index does not own it, so keep a reference.
        self.quantized = super().create(rows)
        index = faiss.IndexRefineFlat(self.quantized)
        index.k_factor = RESCORED
        return index

    def search(self, index, queries, k, ef):
        faiss.downcast_index(index.base_index).hnsw.efSearch = ef
        return index.search(queries, k)[1]


if __name__ == "__main__":
    faiss.omp_set_num_threads(1)
    engines = {"flat": Flat, "sq8": Sq8, "sq8-rescored": Sq8Rescored}
    vector_index.serve(engines[sys.argv[1]], version("faiss-cpu"))
