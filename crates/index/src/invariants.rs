//! What holds in every index that nobody is writing to.

use crate::nodes::State;
use crate::{Index, NONE};

impl Index {
    /// Checks the graph while nothing runs: every link leads to a linked slot that has its layer
    /// and whose row is there, no list is too long or names a slot twice or its own, walks begin
    /// at a linked slot if there is one. For tests.
    ///
    /// # Panics
    ///
    /// If something does not hold.
    #[doc(hidden)]
    pub fn check_invariants(&self) {
        let nodes = &self.vectors.nodes;
        let guard = self.vectors.rows.pin();
        let slots = 0..self.vectors.rows.end();
        let live = slots.clone().filter(|&slot| nodes.state(slot) != State::Empty && nodes.is_live(slot));
        let mut count = 0;
        for slot in live {
            assert_eq!(self.labels.slot(nodes.label(slot)), slot, "an label leads to its living slot");
            count += 1;
        }
        assert_eq!(count, self.vectors_count(), "as many living slots as vectors");
        let Some(graph) = &self.graph else { return };
        let mut linked = slots.filter(|&slot| nodes.state(slot) == State::Linked).peekable();
        match graph.entry() {
            Some(entry) => {
                assert_eq!(nodes.state(entry.slot), State::Linked, "walks begin at a linked slot");
                assert_eq!(entry.level, graph.links.level(entry.slot));
            }
            None => assert_eq!(linked.peek(), None, "walks begin somewhere"),
        }
        for slot in linked {
            for layer in 0..=graph.links.level(slot) {
                let mut links: Vec<u32> = graph.links.get(slot, layer).collect();
                for &link in &links {
                    assert!(link != NONE && link != slot, "slot {slot} links to itself");
                    assert_eq!(
                        nodes.state(link),
                        State::Linked,
                        "slot {slot} links to {link} on layer {layer}"
                    );
                    assert!(guard.row(link).is_some(), "slot {link} has a row");
                    assert!(graph.links.level(link) >= layer, "slot {link} has layer {layer}");
                }
                let degree = links.len();
                assert!(degree <= graph.links.capacity(layer));
                links.sort_unstable();
                links.dedup();
                assert_eq!(links.len(), degree, "slot {slot} links somewhere twice");
            }
        }
    }
}
