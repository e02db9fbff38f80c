//! Saving an index to bytes and loading it.
//!
//! All integers are little-endian:
//!
//! | bytes | content |
//! |---|---|
//! | 8 | [`MAGIC`], whose last byte is the version of this layout |
//! | 16 | dimension (u32), metric, type, algorithm, quantization (u8 each), m, ef_construction (u32; 0 if flat) |
//! | 16 | number of slots, number of pending slots, entry point (`u32::MAX` if there is none), number of unrefined vectors (u32 each) |
//! | 1 per slot | [`SlotContent`] |
//! | 4 per pending slot | slot number, in the order of the tail |
//! | one record per slot that holds a vector | label (u32), scale (f32, if the codec has scales), row; if linked, the links of layers 0, 1, ... (u32 each, padded to the capacity of the list with `u32::MAX`) |
//!
//! Slots keep their numbers, which determine their levels.

use std::io::{self, Read, Write};

use crate::graph::EntryPoint;
use crate::nodes::SlotState;
use crate::sync::atomic::Ordering::Relaxed;
use crate::vectors::Vectors;
use crate::{Algorithm, Cpu, Index, Metric, NONE, Options, Quantization, VectorType};

pub(crate) const MAGIC: [u8; 8] = *b"NFINDEX\x02";
const HEADER_BYTES: usize = 40;
/// Records are written and read in blocks of about this many bytes.
const BLOCK_BYTES: usize = 1 << 20;

/// What a slot contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum SlotContent {
    Empty = 0,
    /// A vector in the tail.
    Pending = 1,
    /// A vector in the graph, or in a flat index.
    Linked = 2,
    /// A removed vector whose links are still in the graph.
    Tombstone = 3,
}

/// Why a snapshot cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Reading failed, or the snapshot is truncated.
    #[error("cannot read the index snapshot: {0}")]
    Io(#[from] io::Error),
    /// The bytes are not a snapshot in this format version.
    #[error("not an index snapshot of this format version")]
    Format,
    /// The snapshot belongs to an index with different options.
    #[error("the options of the index snapshot are not {expected:?}")]
    Options {
        /// The options requested.
        expected: Options,
    },
    /// The content is inconsistent.
    #[error("index snapshot is malformed at slot {slot}: {what}")]
    Malformed {
        /// The slot at which it was noticed.
        slot: u32,
        /// What is wrong.
        what: &'static str,
    },
}

fn malformed<T>(slot: u32, what: &'static str) -> Result<T, LoadError> {
    Err(LoadError::Malformed { slot, what })
}

/// The options as encoded in the header.
pub(crate) fn encode_options(options: &Options) -> [u8; 16] {
    let (algorithm, m, ef_construction) = match options.algorithm {
        Algorithm::Flat => (0, 0, 0),
        Algorithm::Hnsw { m, ef_construction } => (1, m, ef_construction),
    };
    let metric = match options.metric {
        Metric::Cosine => 0,
        Metric::Ip => 1,
        Metric::L2 => 2,
    };
    let vector_type = match options.vector_type {
        VectorType::Float32 => 0,
        VectorType::Float16 => 1,
        VectorType::Bfloat16 => 2,
        VectorType::Int8 => 3,
    };
    let quantization = match options.quantization {
        Quantization::None => 0,
        Quantization::Int8 => 1,
        Quantization::Int4 => 2,
    };
    let mut header = [0; 16];
    header[..4].copy_from_slice(&(options.dim as u32).to_le_bytes());
    header[4..8].copy_from_slice(&[metric, vector_type, algorithm, quantization]);
    header[8..12].copy_from_slice(&(m as u32).to_le_bytes());
    header[12..].copy_from_slice(&u32::try_from(ef_construction).unwrap_or(u32::MAX).to_le_bytes());
    header
}

impl Index {
    /// Writes a snapshot of the graph and the vectors. Searches and writes may continue. The snapshot includes every
    /// vector whose [`Index::upsert`] returned before this call, those in the tail as well. No slots are reclaimed
    /// in the meantime.
    pub fn save(&self, output: &mut dyn Write) -> io::Result<()> {
        let _reclaim_guard = self.reclaim_lock.lock();
        let nodes = &self.vectors.nodes;
        let guard = self.vectors.rows.pin();
        let entry = self.graph.as_ref().and_then(|graph| graph.entry_point());
        let contents: Vec<SlotContent> =
            (0..self.vectors.rows.end()).map(|slot| self.content(slot, guard.epoch())).collect();
        let is_linked = |slot: u32| {
            contents
                .get(slot as usize)
                .is_some_and(|contents| matches!(contents, SlotContent::Linked | SlotContent::Tombstone))
        };
        let mut pending: Vec<u32> = (0..contents.len() as u32)
            .filter(|&slot| contents[slot as usize] == SlotContent::Pending)
            .collect();
        pending.sort_by_key(|&slot| nodes.inserted_at(slot));
        // The entry point may still be in the tail, or the first vectors were linked only after it was read.
        let entry = self.graph.as_ref().and_then(|graph| {
            let linked = (0..contents.len() as u32).filter(|&slot| is_linked(slot));
            let entry = entry.map(|entry| entry.slot).filter(|&slot| is_linked(slot));
            entry.or_else(|| linked.max_by_key(|&slot| graph.links.level(slot)))
        });

        let mut block = Vec::with_capacity(BLOCK_BYTES + (1 << 16));
        block.extend(MAGIC);
        block.extend(encode_options(&self.options));
        block.extend((contents.len() as u32).to_le_bytes());
        block.extend((pending.len() as u32).to_le_bytes());
        block.extend(entry.unwrap_or(NONE).to_le_bytes());
        block.extend((self.unrefined() as u32).to_le_bytes());
        block.extend(contents.iter().map(|&contents| contents as u8));
        block.extend(pending.iter().flat_map(|slot| slot.to_le_bytes()));
        for (slot, contents) in (0..).zip(&contents).filter(|(_, contents)| **contents != SlotContent::Empty)
        {
            block.extend(nodes.label(slot).to_le_bytes());
            if self.vectors.codec.is_scaled() {
                block.extend(nodes.scale(slot).to_le_bytes());
            }
            let row = guard.row(slot).expect("no row is reclaimed during a snapshot");
            row.parts().for_each(|part| block.extend(part));
            if let Some(graph) = &self.graph
                && *contents != SlotContent::Pending
            {
                for layer in 0..=graph.links.level(slot) {
                    let _locked = graph.links.lock(slot);
                    let end = block.len() + 4 * graph.links.capacity(layer);
                    let links = graph.links.get(slot, layer).filter(|&link| is_linked(link));
                    block.extend(links.flat_map(u32::to_le_bytes));
                    block.resize(end, 0xff);
                }
            }
            if block.len() >= BLOCK_BYTES {
                output.write_all(&block)?;
                block.clear();
            }
        }
        output.write_all(&block)
    }

    /// What a slot contains for a reader pinned at `epoch`.
    fn content(&self, slot: u32, epoch: u64) -> SlotContent {
        let nodes = &self.vectors.nodes;
        let visible = nodes.is_visible(slot, epoch);
        match nodes.state(slot) {
            SlotState::Linked if visible => SlotContent::Linked,
            SlotState::Linked if self.graph.is_some() && nodes.inserted_at(slot) <= epoch => {
                SlotContent::Tombstone
            }
            SlotState::Pending if visible => SlotContent::Pending,
            _ => SlotContent::Empty,
        }
    }

    /// Loads a snapshot. The caller protects it with a checksum; nevertheless, a malformed snapshot is an error, never
    /// a panic or an unbounded allocation. Reads exactly to the end of the snapshot.
    pub fn load(input: &mut dyn Read, options: Options, cpu: Cpu) -> Result<Index, LoadError> {
        let mut header = [0; HEADER_BYTES];
        input.read_exact(&mut header)?;
        if header[..8] != MAGIC {
            return Err(LoadError::Format);
        }
        if header[8..24] != encode_options(&options) {
            return Err(LoadError::Options { expected: options });
        }
        let number = |at: usize| u32_at(&header, at);
        let (slots, pending, entry) = (number(24), number(28), number(32));
        let index = Index::new(options, cpu);
        let mut contents = Vec::new();
        for (slot, byte) in (0..).zip(read(input, slots as usize)?) {
            contents.push(match byte {
                0 => SlotContent::Empty,
                1 if index.graph.is_some() => SlotContent::Pending,
                2 => SlotContent::Linked,
                3 if index.graph.is_some() => SlotContent::Tombstone,
                _ => return malformed(slot, "unknown slot content"),
            });
        }
        let tail = read(input, pending as usize * 4)?;
        index.load_records(input, &contents)?;
        index.load_tail(&tail, &mut contents)?;
        index.load_entry(entry, &contents)?;
        if let Some(graph) = &index.graph {
            graph.unrefined.store(number(36) as usize, Relaxed);
        }
        Ok(index)
    }

    fn load_records(&self, input: &mut dyn Read, contents: &[SlotContent]) -> Result<(), LoadError> {
        let mut next = 0;
        while next < contents.len() {
            let (first, mut bytes) = (next, 0);
            while next < contents.len() && bytes < BLOCK_BYTES {
                bytes += self.record_bytes(next as u32, contents[next]);
                next += 1;
            }
            let block = read(input, bytes)?;
            let mut rest = &block[..];
            for slot in first..next {
                let record;
                (record, rest) = rest.split_at(self.record_bytes(slot as u32, contents[slot]));
                self.load_record(slot as u32, record, contents)?;
            }
        }
        Ok(())
    }

    fn record_bytes(&self, slot: u32, contents: SlotContent) -> usize {
        let vector = 4 + 4 * usize::from(self.vectors.codec.is_scaled()) + self.vectors.codec.row_bytes();
        match (contents, &self.graph) {
            (SlotContent::Empty, _) => 0,
            (SlotContent::Linked | SlotContent::Tombstone, Some(graph)) => {
                let lists = 0..=graph.links.level(slot);
                vector + 4 * lists.map(|layer| graph.links.capacity(layer)).sum::<usize>()
            }
            _ => vector,
        }
    }

    fn load_record(&self, slot: u32, record: &[u8], contents: &[SlotContent]) -> Result<(), LoadError> {
        let Vectors { codec, rows, nodes } = &self.vectors;
        let kind = contents[slot as usize];
        if kind == SlotContent::Empty {
            rows.skip_fresh();
            return Ok(());
        }
        let label = u32_at(record, 0);
        if label == NONE {
            return malformed(slot, "the label is out of range");
        }
        let (scale, at) = if codec.is_scaled() { (f32::from_bits(u32_at(record, 4)), 8) } else { (1.0, 4) };
        if !(scale.is_finite() && scale >= 0.0) {
            return malformed(slot, "the scale is negative or not finite");
        }
        let (row, links) = record[at..].split_at(codec.row_bytes());
        if !codec.is_valid_row(row) {
            return malformed(slot, "the vector is not finite, or its codes do not match its header");
        }
        let claim = rows.claim_fresh(row);
        let state = if kind == SlotContent::Pending { SlotState::Pending } else { SlotState::Linked };
        nodes.init(slot, label, scale, state);
        if let Some(graph) = &self.graph {
            graph.links.clear(slot);
            let mut words = links.as_chunks().0.iter().map(|&word| u32::from_le_bytes(word));
            let mut list = Vec::with_capacity(graph.links.capacity(0));
            let layers = if kind == SlotContent::Pending { 0 } else { graph.links.level(slot) + 1 };
            for layer in 0..layers {
                list.clear();
                list.extend(words.by_ref().take(graph.links.capacity(layer)));
                let end = list.iter().position(|&link| link == NONE).unwrap_or(list.len());
                if list[end..].iter().any(|&link| link != NONE) {
                    return malformed(slot, "a list of links has a gap");
                }
                list.truncate(end);
                for &link in &list {
                    if !matches!(
                        contents.get(link as usize),
                        Some(SlotContent::Linked | SlotContent::Tombstone)
                    ) {
                        return malformed(slot, "a link leads to a slot that is not linked");
                    }
                    if link == slot || graph.links.level(link) < layer {
                        return malformed(
                            slot,
                            "a link leads to the slot itself or to a slot that is not on the layer",
                        );
                    }
                }
                graph.links.set(slot, layer, &list);
            }
        }
        claim.publish();
        if kind != SlotContent::Pending {
            self.load_vector(slot, kind)?;
        }
        Ok(())
    }

    fn load_vector(&self, slot: u32, kind: SlotContent) -> Result<(), LoadError> {
        let nodes = &self.vectors.nodes;
        let mut is_duplicate = false;
        self.vectors.rows.epochs().advance(|epoch| {
            nodes.mark_inserted(slot, epoch);
            if kind == SlotContent::Tombstone {
                self.tombstone(slot, epoch);
                return;
            }
            is_duplicate = self.labels.replace(nodes.label(slot), slot) != NONE;
            self.counters.vectors.fetch_add(1, Relaxed);
            if kind == SlotContent::Pending {
                self.tail.push(slot, nodes);
            }
        });
        if is_duplicate { malformed(slot, "another slot has the same label") } else { Ok(()) }
    }

    fn load_tail(&self, tail: &[u8], contents: &mut [SlotContent]) -> Result<(), LoadError> {
        for &slot in tail.as_chunks().0 {
            let slot = u32::from_le_bytes(slot);
            match contents.get_mut(slot as usize) {
                Some(contents @ SlotContent::Pending) => {
                    // Marks the slot as loaded: the tail must not name it again.
                    *contents = SlotContent::Empty;
                    self.load_vector(slot, SlotContent::Pending)?;
                }
                _ => return malformed(slot, "the tail names a slot that is not pending"),
            }
        }
        match contents.iter().position(|&contents| contents == SlotContent::Pending) {
            Some(slot) => malformed(slot as u32, "the slot is pending, but the tail does not name it"),
            None => Ok(()),
        }
    }

    fn load_entry(&self, slot: u32, contents: &[SlotContent]) -> Result<(), LoadError> {
        let linked = |slot: u32| {
            matches!(contents.get(slot as usize), Some(SlotContent::Linked | SlotContent::Tombstone))
        };
        let Some(graph) = &self.graph else {
            return if slot == NONE { Ok(()) } else { malformed(slot, "a flat index has no entry point") };
        };
        if linked(slot) {
            let level = graph.links.level(slot);
            graph.set_entry_point(Some(EntryPoint { slot, level }));
            return Ok(());
        }
        if slot != NONE || (0..contents.len() as u32).any(linked) {
            return malformed(slot, "the entry point is not linked");
        }
        Ok(())
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Reads exactly `bytes` bytes, and allocates at most twice as much memory as there are bytes to read.
fn read(input: &mut dyn Read, bytes: usize) -> io::Result<Vec<u8>> {
    let mut block = Vec::new();
    input.take(bytes as u64).read_to_end(&mut block)?;
    if block.len() < bytes { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(block) }
}
