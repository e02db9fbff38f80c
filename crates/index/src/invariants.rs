//! Invariants of an index while no thread writes to it.

use crate::nodes::SlotState;
use crate::{Index, NONE};

impl Index {
    /// Checks the invariants of the graph while no other thread uses the index: every link leads to a linked slot
    /// with a published row on that layer; no list exceeds its capacity, contains a slot twice or links to its own
    /// slot; the entry point is a linked slot if there is one. For tests.
    ///
    /// # Panics
    ///
    /// If an invariant is violated.
    #[doc(hidden)]
    pub fn check_invariants(&self) {
        let nodes = &self.vectors.nodes;
        let guard = self.vectors.rows.pin();
        let slots = 0..self.vectors.rows.end();
        let live = slots.clone().filter(|&slot| nodes.state(slot) != SlotState::Empty && nodes.is_live(slot));
        let mut count = 0;
        for slot in live {
            assert_eq!(self.labels.slot(nodes.label(slot)), slot, "a label maps to its live slot");
            count += 1;
        }
        assert_eq!(count, self.vectors_count(), "there are as many live slots as vectors");
        let Some(graph) = &self.graph else { return };
        let mut linked = slots.filter(|&slot| nodes.state(slot) == SlotState::Linked).peekable();
        match graph.entry_point() {
            Some(entry) => {
                assert_eq!(nodes.state(entry.slot), SlotState::Linked, "the entry point is linked");
                assert_eq!(entry.level, graph.links.level(entry.slot));
            }
            None => assert_eq!(linked.peek(), None, "a graph with linked slots has an entry point"),
        }
        for slot in linked {
            for layer in 0..=graph.links.level(slot) {
                let mut links: Vec<u32> = graph.links.get(slot, layer).collect();
                for &link in &links {
                    assert!(link != NONE && link != slot, "slot {slot} links to itself");
                    assert_eq!(
                        nodes.state(link),
                        SlotState::Linked,
                        "slot {slot} links to {link} on layer {layer}"
                    );
                    assert!(guard.row(link).is_some(), "slot {link} has a row");
                    assert!(graph.links.level(link) >= layer, "slot {link} has layer {layer}");
                }
                let degree = links.len();
                assert!(degree <= graph.links.capacity(layer));
                links.sort_unstable();
                links.dedup();
                assert_eq!(links.len(), degree, "slot {slot} contains a link twice");
            }
        }
    }
}
