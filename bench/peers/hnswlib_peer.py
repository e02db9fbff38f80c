"""hnswlib over float32. vector_index.py describes the protocol."""

from importlib.metadata import version

import hnswlib
import numpy as np

import vector_index


class Hnswlib(vector_index.Engine):
    def create(self, rows):
        index = hnswlib.Index(space="ip", dim=self.dim)
        index.init_index(max_elements=rows, M=self.m, ef_construction=self.ef_construction, random_seed=100)
        return index

    def add(self, index, vectors, first):
        index.add_items(vectors, np.arange(first, first + len(vectors)), num_threads=1)

    def search(self, index, queries, k, ef):
        index.set_ef(ef)
        labels, _ = index.knn_query(queries, k=k, num_threads=1)
        return labels


if __name__ == "__main__":
    vector_index.serve(Hnswlib, version("hnswlib"))
