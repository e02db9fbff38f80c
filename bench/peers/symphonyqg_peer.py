"""SymphonyQG (Gou et al. 2025, "SymphonyQG: Towards Symphonious Integration of Quantization and Graph for
Approximate Nearest Neighbor Search") from its authors' library rabitqlib, float32 rows beside 1-bit codes of
each node's neighbours; what it is asked and answers is in vector_index.py.

Its degree is 32 and its breadth while building 400, whatever is asked for: on this data degree 64 and
breadth 200 are slower at equal recall. On vectors of unit length squared L2 orders as the inner product does,
and is the faster of its two metrics.
"""

from importlib.metadata import version

from rabitqlib import SymqgIndex

import vector_index


class SymphonyQg(vector_index.Engine):
    # It builds from all vectors at once and takes none afterwards.
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
