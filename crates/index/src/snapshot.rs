//! The index as bytes.
//!
//! Little-endian throughout:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | [`MAGIC`], whose last byte is the version of this layout |
//! | 16 | dimension (u32), metric, type, algorithm, quantization (u8 each), m, ef_construction (u32; 0 if flat) |
//! | 16 | slots, waiting slots, the entry (`u32::MAX` if there is none), unrefined vectors (u32 each) |
//! | 1 a slot | [`Held`] |
//! | 4 a waiting slot | its number, in the order of the tail |
//! | a record a slot that holds a vector | label (u32), scale (f32, if the codec has scales), row; if linked, the links of layers 0, 1, ... (u32 each, filled up to the list's capacity with `u32::MAX`) |
//!
//! Slots keep their numbers, which decide their levels.

use std::io::{self, Read, Write};

use crate::graph::Entry;
use crate::nodes::State;
use crate::sync::atomic::Ordering::Relaxed;
use crate::vectors::Vectors;
use crate::{Algorithm, Cpu, Index, Metric, NONE, Options, Quantization, VectorType};

pub(crate) const MAGIC: [u8; 8] = *b"NFINDEX\x02";
const HEADER_BYTES: usize = 40;
/// Records are written and read about this many bytes at a time.
const BLOCK_BYTES: usize = 1 << 20;

/// What a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Held {
    Nothing = 0,
    /// A vector of the tail.
    Waiting = 1,
    /// A vector of the graph, or of a flat index.
    Linked = 2,
    /// A vector that was removed and still carries links.
    Dead = 3,
}

/// Why a snapshot could not be read back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// It could not be read, or ends too soon.
    #[error("index snapshot cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It does not begin as a snapshot of this version does.
    #[error("not an index snapshot of this version")]
    Format,
    /// It is of an index made with other options.
    #[error("index snapshot was made with other options than {expected:?}")]
    Options {
        /// Those asked for.
        expected: Options,
    },
    /// It says what no index would.
    #[error("index snapshot is malformed at slot {slot}: {what}")]
    Malformed {
        /// The slot where it was noticed.
        slot: u32,
        /// What is wrong.
        what: &'static str,
    },
}

fn malformed<T>(slot: u32, what: &'static str) -> Result<T, LoadError> {
    Err(LoadError::Malformed { slot, what })
}

/// The options as they stand in a header.
pub(crate) fn header_of(options: &Options) -> [u8; 16] {
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
    /// Writes graph and vectors. Searches and writes may go on; every vector whose `upsert`
    /// returned before the call is in it, tail included. Slots are not given back meanwhile.
    pub fn save(&self, to: &mut dyn Write) -> io::Result<()> {
        let _keeping = self.keeping.lock();
        let nodes = &self.vectors.nodes;
        let guard = self.vectors.rows.pin();
        let entry = self.graph.as_ref().and_then(|graph| graph.entry());
        let held: Vec<Held> =
            (0..self.vectors.rows.end()).map(|slot| self.held(slot, guard.epoch())).collect();
        let is_linked =
            |slot: u32| held.get(slot as usize).is_some_and(|held| matches!(held, Held::Linked | Held::Dead));
        let mut waiting: Vec<u32> =
            (0..held.len() as u32).filter(|&slot| held[slot as usize] == Held::Waiting).collect();
        waiting.sort_by_key(|&slot| nodes.born(slot));
        // The entry may have been about to settle, or there was none and the first vectors just did.
        let entry = self.graph.as_ref().and_then(|graph| {
            let linked = (0..held.len() as u32).filter(|&slot| is_linked(slot));
            let entry = entry.map(|entry| entry.slot).filter(|&slot| is_linked(slot));
            entry.or_else(|| linked.max_by_key(|&slot| graph.links.level(slot)))
        });

        let mut block = Vec::with_capacity(BLOCK_BYTES + (1 << 16));
        block.extend(MAGIC);
        block.extend(header_of(&self.options));
        block.extend((held.len() as u32).to_le_bytes());
        block.extend((waiting.len() as u32).to_le_bytes());
        block.extend(entry.unwrap_or(NONE).to_le_bytes());
        block.extend((self.unrefined() as u32).to_le_bytes());
        block.extend(held.iter().map(|&held| held as u8));
        block.extend(waiting.iter().flat_map(|slot| slot.to_le_bytes()));
        for (slot, held) in (0..).zip(&held).filter(|(_, held)| **held != Held::Nothing) {
            block.extend(nodes.label(slot).to_le_bytes());
            if self.vectors.codec.is_scaled() {
                block.extend(nodes.scale(slot).to_le_bytes());
            }
            let row = guard.row(slot).expect("no row goes while one keeps them");
            row.parts().for_each(|part| block.extend(part));
            if let Some(graph) = &self.graph
                && *held != Held::Waiting
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
                to.write_all(&block)?;
                block.clear();
            }
        }
        to.write_all(&block)
    }

    /// What a slot holds for a reader pinned at `epoch`.
    fn held(&self, slot: u32, epoch: u64) -> Held {
        let nodes = &self.vectors.nodes;
        let visible = nodes.is_visible(slot, epoch);
        match nodes.state(slot) {
            State::Linked if visible => Held::Linked,
            State::Linked if self.graph.is_some() && nodes.born(slot) <= epoch => Held::Dead,
            State::Waiting if visible => Held::Waiting,
            _ => Held::Nothing,
        }
    }

    /// Reads a snapshot back. Its integrity is the caller's to check (a checksum around it), but
    /// a malformed one is an error, never a panic or an unbounded allocation. Reads no further
    /// than its end.
    pub fn load(from: &mut dyn Read, options: Options, cpu: Cpu) -> Result<Index, LoadError> {
        let mut header = [0; HEADER_BYTES];
        from.read_exact(&mut header)?;
        if header[..8] != MAGIC {
            return Err(LoadError::Format);
        }
        if header[8..24] != header_of(&options) {
            return Err(LoadError::Options { expected: options });
        }
        let number = |at: usize| u32_at(&header, at);
        let (slots, waiting, entry) = (number(24), number(28), number(32));
        let index = Index::new(options, cpu);
        let mut held = Vec::new();
        for (slot, byte) in (0..).zip(read(from, slots as usize)?) {
            held.push(match byte {
                0 => Held::Nothing,
                1 if index.graph.is_some() => Held::Waiting,
                2 => Held::Linked,
                3 if index.graph.is_some() => Held::Dead,
                _ => return malformed(slot, "it holds none of the known kinds"),
            });
        }
        let tail = read(from, waiting as usize * 4)?;
        index.load_records(from, &held)?;
        index.load_tail(&tail, &mut held)?;
        index.load_entry(entry, &held)?;
        if let Some(graph) = &index.graph {
            graph.unrefined.store(number(36) as usize, Relaxed);
        }
        Ok(index)
    }

    fn load_records(&self, from: &mut dyn Read, held: &[Held]) -> Result<(), LoadError> {
        let mut next = 0;
        while next < held.len() {
            let (first, mut bytes) = (next, 0);
            while next < held.len() && bytes < BLOCK_BYTES {
                bytes += self.record_bytes(next as u32, held[next]);
                next += 1;
            }
            let block = read(from, bytes)?;
            let mut rest = &block[..];
            for slot in first..next {
                let record;
                (record, rest) = rest.split_at(self.record_bytes(slot as u32, held[slot]));
                self.load_record(slot as u32, record, held)?;
            }
        }
        Ok(())
    }

    fn record_bytes(&self, slot: u32, held: Held) -> usize {
        let vector = 4 + 4 * usize::from(self.vectors.codec.is_scaled()) + self.vectors.codec.row_bytes();
        match (held, &self.graph) {
            (Held::Nothing, _) => 0,
            (Held::Linked | Held::Dead, Some(graph)) => {
                let lists = 0..=graph.links.level(slot);
                vector + 4 * lists.map(|layer| graph.links.capacity(layer)).sum::<usize>()
            }
            _ => vector,
        }
    }

    fn load_record(&self, slot: u32, record: &[u8], held: &[Held]) -> Result<(), LoadError> {
        let Vectors { codec, rows, nodes } = &self.vectors;
        let kind = held[slot as usize];
        if kind == Held::Nothing {
            rows.skip_fresh();
            return Ok(());
        }
        let label = u32_at(record, 0);
        if label == NONE {
            return malformed(slot, "the label's number is out of range");
        }
        let (scale, at) = if codec.is_scaled() { (f32::from_bits(u32_at(record, 4)), 8) } else { (1.0, 4) };
        if !(scale.is_finite() && scale >= 0.0) {
            return malformed(slot, "the scale is not a finite positive number");
        }
        let (row, links) = record[at..].split_at(codec.row_bytes());
        if !codec.is_valid_row(row) {
            return malformed(slot, "the vector is not finite, or its parts do not fit");
        }
        let claim = rows.claim_fresh(row);
        let state = if kind == Held::Waiting { State::Waiting } else { State::Linked };
        nodes.fill(slot, label, scale, state);
        if let Some(graph) = &self.graph {
            graph.links.clear(slot);
            let mut words = links.as_chunks().0.iter().map(|&word| u32::from_le_bytes(word));
            let mut list = Vec::with_capacity(graph.links.capacity(0));
            let layers = if kind == Held::Waiting { 0 } else { graph.links.level(slot) + 1 };
            for layer in 0..layers {
                list.clear();
                list.extend(words.by_ref().take(graph.links.capacity(layer)));
                let end = list.iter().position(|&link| link == NONE).unwrap_or(list.len());
                if list[end..].iter().any(|&link| link != NONE) {
                    return malformed(slot, "a list of links has a gap");
                }
                list.truncate(end);
                for &link in &list {
                    if !matches!(held.get(link as usize), Some(Held::Linked | Held::Dead)) {
                        return malformed(slot, "a link leads to a slot that is not linked");
                    }
                    if link == slot || graph.links.level(link) < layer {
                        return malformed(slot, "a link leads where its layer has none");
                    }
                }
                graph.links.set(slot, layer, &list);
            }
        }
        claim.publish();
        if kind != Held::Waiting {
            self.load_birth(slot, kind)?;
        }
        Ok(())
    }

    fn load_birth(&self, slot: u32, kind: Held) -> Result<(), LoadError> {
        let nodes = &self.vectors.nodes;
        let mut taken = false;
        self.vectors.rows.epochs().advance(|epoch| {
            nodes.set_born(slot, epoch);
            if kind == Held::Dead {
                self.tombstone(slot, epoch);
                return;
            }
            taken = self.labels.replace(nodes.label(slot), slot) != NONE;
            self.counts.vectors.fetch_add(1, Relaxed);
            if kind == Held::Waiting {
                self.tail.push(slot, nodes);
            }
        });
        if taken { malformed(slot, "its label has two vectors") } else { Ok(()) }
    }

    fn load_tail(&self, tail: &[u8], held: &mut [Held]) -> Result<(), LoadError> {
        for &slot in tail.as_chunks().0 {
            let slot = u32::from_le_bytes(slot);
            match held.get_mut(slot as usize) {
                Some(held @ Held::Waiting) => {
                    // Seen: it must not come twice.
                    *held = Held::Nothing;
                    self.load_birth(slot, Held::Waiting)?;
                }
                _ => return malformed(slot, "the tail names a slot that does not wait"),
            }
        }
        match held.iter().position(|&held| held == Held::Waiting) {
            Some(slot) => malformed(slot as u32, "it waits, but the tail does not name it"),
            None => Ok(()),
        }
    }

    fn load_entry(&self, slot: u32, held: &[Held]) -> Result<(), LoadError> {
        let linked = |slot: u32| matches!(held.get(slot as usize), Some(Held::Linked | Held::Dead));
        let Some(graph) = &self.graph else {
            return if slot == NONE { Ok(()) } else { malformed(slot, "a flat index has no entry") };
        };
        if linked(slot) {
            let level = graph.links.level(slot);
            graph.set_entry(Some(Entry { slot, level }));
            return Ok(());
        }
        if slot != NONE || (0..held.len() as u32).any(linked) {
            return malformed(slot, "the graph's entry is not linked");
        }
        Ok(())
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Reads exactly `bytes` bytes; takes no more memory than there are bytes to read, doubled.
fn read(from: &mut dyn Read, bytes: usize) -> io::Result<Vec<u8>> {
    let mut block = Vec::new();
    from.take(bytes as u64).read_to_end(&mut block)?;
    if block.len() < bytes { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(block) }
}
