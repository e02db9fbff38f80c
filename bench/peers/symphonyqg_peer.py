"""SymphonyQG (Gou et al. 2025, "SymphonyQG: Towards Symphonious Integration of Quantization and Graph for
Approximate Nearest Neighbor Search") from its authors' library rabitqlib: float32 rows next to 1-bit codes of
each node's neighbours. vector_index.py describes the protocol.

The degree is always 32 and ef_construction 400: on this data degree 64 and ef_construction 200 are slower at equal
recall. On unit vectors squared L2 gives the same order as the inner product and is the faster of its metrics.
"""

from importlib.metadata import version

from rabitqlib import SymqgIndex

import vector_index


class SymphonyQg(vector_index.Engine):
    # It builds from all vectors at once and accepts none afterwards.
    takes_all_at_once = True
    fewest = 64

    def __init__(self, dim, m, ef_construction):
        super().__init__(dim, 32, 400)

    def create(self, rows):
        return SymqgIndex(self.dim, self.m, "l2", 0)

    def add(self, index, vectors, first):
        index.build(vectors, self.ef_construction, 1)

    def search(self, index, queries, k, ef):
        return index.search(queries, k, ef, 1)[0]


if __name__ == "__main__":
    vector_index.serve(SymphonyQg, version("rabitqlib"))
