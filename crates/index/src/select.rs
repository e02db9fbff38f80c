//! Selection of the candidates that become links.

use kernels::arena::Guard;

use crate::batch::ScoreBatch;
use crate::vector_codec::PreparedQuery;
use crate::vectors::Vectors;

/// Selects at most `count` of the candidates (distance to the node and slot, nearest first). A candidate is kept
/// if it is nearer to the node than to every neighbour kept before it (Malkov and Yashunin 2016, algorithm 4,
/// without extending the candidates; as in hnswlib).
///
/// Of several copies of one vector only the first is kept; the others are added at the end if there is space.
/// Otherwise copies could fill the list of another copy and disconnect it from the rest of the graph.
///
/// Candidates are compared with a kept neighbour in the same way as with the node: the neighbour is the query, the
/// candidates are rows. However rows are rounded, a neighbour that is a copy of the node is therefore exactly as far
/// from each candidate as the node, and excludes none of them.
pub(crate) fn select_neighbors(
    vectors: &Vectors,
    guard: &Guard<'_>,
    candidates: &[(f32, u32)],
    count: usize,
) -> Vec<u32> {
    if candidates.len() <= count {
        return candidates.iter().map(|&(_, slot)| slot).collect();
    }
    let mut kept = Vec::with_capacity(count);
    let mut copies = Vec::new();
    let mut remaining = candidates.to_vec();
    let (mut query, mut batch) = (PreparedQuery::default(), ScoreBatch::new(vectors, guard));
    while kept.len() < count && !remaining.is_empty() {
        let (_, neighbor) = remaining.remove(0);
        if !vectors.prepare(guard, neighbor, &mut query) {
            continue;
        }
        kept.push(neighbor);
        batch.clear();
        remaining.iter().for_each(|&(_, slot)| batch.add(slot));
        batch.score(&mut query);
        // The batch may lack some of the candidates, but has the same order.
        let mut scored = batch.scored().peekable();
        remaining.retain(|&(distance, slot)| {
            let Some((_, between)) = scored.next_if(|&(scored, _)| scored == slot) else { return false };
            let is_copy = between == distance && guard.row(neighbor) == guard.row(slot);
            if is_copy {
                copies.push(slot);
            }
            between >= distance && !is_copy
        });
    }
    let space = count - kept.len();
    kept.extend(copies.into_iter().take(space));
    kept
}
