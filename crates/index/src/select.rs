//! Which of the candidates become links.

use kernels::arena::Guard;

use crate::batch::Batch;
use crate::vector_codec::Query;
use crate::vectors::Vectors;

/// Chooses at most `count` of the candidates (distance to the node, slot; nearest first): a
/// candidate is kept if it is nearer to the node than to every neighbour kept before it
/// (Malkov and Yashunin 2016, algorithm 4, without extending; as in hnswlib).
///
/// Copies of one vector are as far from the node as from each other. Only the first is kept, and
/// the others get the room that is left over: they must not fill the list of a copy and cut it
/// off from everything else.
///
/// Candidates are compared with a neighbour as they were with the node, as rows with a query: so
/// a neighbour that is a copy of the node is exactly as far from them, and drops none, however
/// rows are rounded.
pub(crate) fn select(
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
    let mut left = candidates.to_vec();
    let (mut query, mut batch) = (Query::default(), Batch::new(vectors, guard));
    while kept.len() < count && !left.is_empty() {
        let (_, neighbor) = left.remove(0);
        if !vectors.prepare(guard, neighbor, &mut query) {
            continue;
        }
        kept.push(neighbor);
        batch.clear();
        left.iter().for_each(|&(_, slot)| batch.add(slot));
        batch.score(&mut query);
        // The batch may have lost slots, but not their order.
        let mut scored = batch.scored().peekable();
        left.retain(|&(distance, slot)| {
            let Some((_, between)) = scored.next_if(|&(scored, _)| scored == slot) else { return false };
            let is_copy = between == distance && guard.row(neighbor) == guard.row(slot);
            if is_copy {
                copies.push(slot);
            }
            between >= distance && !is_copy
        });
    }
    let room = count - kept.len();
    kept.extend(copies.into_iter().take(room));
    kept
}
