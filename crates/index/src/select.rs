//! Which of the candidates become links.

use kernels::arena::Guard;

use crate::scratch::Batch;
use crate::space::Query;
use crate::vectors::Vectors;

/// Kept neighbours a candidate is compared with at a time; most fail against the first few.
const AT_ONCE: usize = 8;

/// Chooses at most `count` of the candidates (distance to the node, slot; nearest first): a
/// candidate is kept if it is nearer to the node than to every neighbour kept before it
/// (Malkov and Yashunin 2016, algorithm 4, without extending; as in hnswlib).
///
/// Copies of one vector are as far from the node as from each other. Only the first is kept, and
/// the others get the room that is left over: they must not fill the list of a copy and cut it
/// off from everything else.
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
    let (mut query, mut batch) = (Query::default(), Batch::default());
    for &(distance, slot) in candidates {
        if kept.len() == count {
            break;
        }
        if !vectors.prepare(guard, slot, &mut query) {
            continue;
        }
        let mut nearest = f32::INFINITY;
        for some in kept.chunks(AT_ONCE) {
            batch.slots.clear();
            batch.slots.extend_from_slice(some);
            vectors.score(guard, &mut query, &mut batch);
            nearest = batch.distances.iter().copied().fold(nearest, f32::min);
            if nearest < distance {
                break;
            }
        }
        if nearest < distance {
            continue;
        }
        let is_copy = |kept: &u32| guard.row(*kept) == guard.row(slot);
        if nearest == distance && kept.iter().any(is_copy) {
            copies.push(slot);
        } else {
            kept.push(slot);
        }
    }
    let room = count - kept.len();
    kept.extend(copies.into_iter().take(room));
    kept
}
