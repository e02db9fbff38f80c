//! A simulated disk for tests.

use std::io;
use std::sync::{Arc, Mutex};

use redb::StorageBackend;

/// A power loss keeps or loses whole sectors of this size.
const SECTOR_BYTES: usize = 512;

/// An in-memory disk that outlives its store, counts calls and injects faults.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<DiskState>>);

#[derive(Debug, Default)]
struct DiskState {
    /// The content that reads return.
    bytes: Vec<u8>,
    /// The content that survives a power loss for certain.
    synced: Vec<u8>,
    /// Changes since the last sync, in order.
    unsynced: Vec<Unsynced>,
    calls: u64,
    syncs: u64,
    fault: Option<Fault>,
    syncs_failed: u64,
}

#[derive(Clone, Debug)]
enum Unsynced {
    Write { offset: usize, data: Vec<u8> },
    SetLen { len: usize },
}

/// A fault that occurs at one call (counted from 1).
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// This call fails, with a write half done. Later calls succeed.
    Once { call: u64 },
    /// This call and all later ones fail.
    From { call: u64 },
}

impl Fault {
    /// The kind of error at a failing call. The kinds alternate with the number of the call.
    pub(crate) fn kind(call: u64) -> io::ErrorKind {
        const KINDS: [io::ErrorKind; 3] =
            [io::ErrorKind::Other, io::ErrorKind::StorageFull, io::ErrorKind::Interrupted];
        KINDS[(call % KINDS.len() as u64) as usize]
    }
}

impl Disk {
    pub(crate) fn with_bytes(bytes: Vec<u8>) -> Disk {
        Disk(Arc::new(Mutex::new(DiskState { synced: bytes.clone(), bytes, ..DiskState::default() })))
    }

    pub(crate) fn with_fault(fault: Fault) -> Disk {
        Disk(Arc::new(Mutex::new(DiskState { fault: Some(fault), ..DiskState::default() })))
    }

    /// Sets the fault to inject.
    pub(crate) fn fail(&self, fault: Fault) {
        self.0.lock().unwrap().fault = Some(fault);
    }

    /// Modifies the content without the store's knowledge.
    pub(crate) fn damage(&self, how: impl FnOnce(&mut [u8])) {
        how(&mut self.0.lock().unwrap().bytes);
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().bytes.clone()
    }

    /// Number of calls so far, of any kind.
    pub(crate) fn calls(&self) -> u64 {
        self.0.lock().unwrap().calls
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.0.lock().unwrap().syncs
    }

    /// Number of failed syncs.
    pub(crate) fn syncs_failed(&self) -> u64 {
        self.0.lock().unwrap().syncs_failed
    }

    /// The disk after a power loss at this moment: all synced changes and, sector by sector, a random part of the
    /// others.
    pub(crate) fn after_power_loss(&self, seed: u64) -> Disk {
        let state = self.0.lock().unwrap();
        let mut random = SplitMix64(seed);
        // Keeps anything from nearly nothing to nearly everything.
        let kept_of_256 = random.next() % 257;
        let mut bytes = state.synced.clone();
        for unsynced in &state.unsynced {
            match unsynced {
                Unsynced::SetLen { len } => {
                    if random.next() % 256 < kept_of_256 {
                        bytes.resize(*len, 0);
                    }
                }
                Unsynced::Write { offset, data } => {
                    let mut at = 0;
                    while at < data.len() {
                        let piece = (SECTOR_BYTES - (offset + at) % SECTOR_BYTES).min(data.len() - at);
                        if random.next() % 256 < kept_of_256 {
                            write_at(&mut bytes, offset + at, &data[at..at + piece]);
                        }
                        at += piece;
                    }
                }
            }
        }
        Disk::with_bytes(bytes)
    }
}

impl DiskState {
    fn call(&mut self) -> io::Result<()> {
        self.calls += 1;
        let fails = match self.fault {
            Some(Fault::Once { call }) => self.calls == call,
            Some(Fault::From { call }) => self.calls >= call,
            None => false,
        };
        let kind = Fault::kind(self.calls);
        if fails { Err(io::Error::new(kind, "injected disk fault")) } else { Ok(()) }
    }

    fn apply(&mut self, change: Unsynced) {
        match &change {
            Unsynced::Write { offset, data } => write_at(&mut self.bytes, *offset, data),
            Unsynced::SetLen { len } => self.bytes.resize(*len, 0),
        }
        self.unsynced.push(change);
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.0.lock().unwrap();
        state.call()?;
        Ok(state.bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.call()?;
        let start = usize::try_from(offset).unwrap();
        let end = start.checked_add(out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(state.bytes.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.call()?;
        state.apply(Unsynced::SetLen { len: usize::try_from(len).unwrap() });
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let outcome = state.call();
        state.syncs_failed += u64::from(outcome.is_err());
        outcome?;
        state.syncs += 1;
        let DiskState { synced, unsynced, .. } = &mut *state;
        for change in unsynced.drain(..) {
            match change {
                Unsynced::Write { offset, data } => write_at(synced, offset, &data),
                Unsynced::SetLen { len } => synced.resize(len, 0),
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        let outcome = state.call();
        let written = if outcome.is_ok() { data } else { &data[..data.len() / 2] };
        state.apply(Unsynced::Write { offset: usize::try_from(offset).unwrap(), data: written.to_vec() });
        outcome
    }
}

fn write_at(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if bytes.len() < offset + data.len() {
        bytes.resize(offset + data.len(), 0);
    }
    bytes[offset..offset + data.len()].copy_from_slice(data);
}

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014).
pub(crate) struct SplitMix64(pub(crate) u64);

impl SplitMix64 {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
