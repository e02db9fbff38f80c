//! A file that is read and never written.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::sync::{Mutex, PoisonError};

use redb::StorageBackend;

const PAGE_BYTES: usize = 4096;

/// A file whose content can be changed in memory only. redb writes to a file when it opens one, above all if its last
/// user did not close it. A check must not do that: the file may be on a read-only disk, or be evidence.
#[derive(Debug)]
pub(crate) struct Overlay(Mutex<State>);

#[derive(Debug)]
struct State {
    file: File,
    /// Length of the file, which does not change.
    file_len: u64,
    len: u64,
    /// Changed pages, by number.
    pages: BTreeMap<u64, Box<[u8; PAGE_BYTES]>>,
}

impl Overlay {
    pub(crate) fn new(file: File) -> io::Result<Overlay> {
        let file_len = file.metadata()?.len();
        Ok(Overlay(Mutex::new(State { file, file_len, len: file_len, pages: BTreeMap::new() })))
    }

    fn with<T>(&self, step: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        // Every step leaves the state consistent, also if it fails.
        step(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    /// Reads the page that begins at `page * PAGE_BYTES`, which may lie behind the end of the file.
    fn page(&mut self, page: u64) -> io::Result<[u8; PAGE_BYTES]> {
        if let Some(changed) = self.pages.get(&page) {
            return Ok(**changed);
        }
        let mut bytes = [0; PAGE_BYTES];
        let start = page * PAGE_BYTES as u64;
        if start < self.file_len {
            self.file.seek(SeekFrom::Start(start))?;
            let len = usize::try_from(self.file_len - start).map_or(PAGE_BYTES, |rest| rest.min(PAGE_BYTES));
            self.file.read_exact(&mut bytes[..len])?;
        }
        Ok(bytes)
    }

    /// Calls `visit` for each piece of a range: with its page, its range within the page, and its range within the whole.
    fn each_piece(
        &mut self,
        offset: u64,
        len: usize,
        mut visit: impl FnMut(&mut State, u64, std::ops::Range<usize>, std::ops::Range<usize>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let start = (at % PAGE_BYTES as u64) as usize;
            let piece = (PAGE_BYTES - start).min(len - done);
            visit(self, at / PAGE_BYTES as u64, start..start + piece, done..done + piece)?;
            done += piece;
        }
        Ok(())
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        self.with(|state| Ok(state.len))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|state| {
            if offset.saturating_add(out.len() as u64) > state.len {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if state.pages.is_empty() && offset + out.len() as u64 <= state.file_len {
                state.file.seek(SeekFrom::Start(offset))?;
                return state.file.read_exact(out);
            }
            let len = out.len();
            state.each_piece(offset, len, |state, page, within, piece| {
                out[piece].copy_from_slice(&state.page(page)?[within]);
                Ok(())
            })
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|state| {
            if len < state.len {
                // What is cut off must read as zeros if the file grows again.
                let first = len.div_ceil(PAGE_BYTES as u64);
                for page in first..state.len.div_ceil(PAGE_BYTES as u64) {
                    state.pages.insert(page, Box::new([0; PAGE_BYTES]));
                }
                let within = (len % PAGE_BYTES as u64) as usize;
                if within > 0 {
                    let mut bytes = state.page(len / PAGE_BYTES as u64)?;
                    bytes[within..].fill(0);
                    state.pages.insert(len / PAGE_BYTES as u64, Box::new(bytes));
                }
            }
            state.len = len;
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|state| {
            state.each_piece(offset, data.len(), |state, page, within, piece| {
                let mut bytes = state.page(page)?;
                bytes[within].copy_from_slice(&data[piece]);
                state.pages.insert(page, Box::new(bytes));
                Ok(())
            })?;
            state.len = state.len.max(offset + data.len() as u64);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    const FILE_BYTES: usize = 10_000;

    fn content() -> Vec<u8> {
        (0..FILE_BYTES).map(|at| (at % 251) as u8 + 1).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            rng_seed: RngSeed::Fixed(9_303),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn behaves_as_a_file_and_leaves_the_file_unchanged(
            steps in prop::collection::vec((0..3u8, 0..20_000usize, 0..9_000usize), 1..20),
        ) {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&content()).unwrap();
            let overlay = Overlay::new(file.try_clone().unwrap()).unwrap();
            let mut model = content();
            for (kind, at, len) in steps {
                match kind {
                    0 => {
                        let data = vec![(at % 256) as u8; len];
                        overlay.write(at as u64, &data).unwrap();
                        model.resize(model.len().max(at + len), 0);
                        model[at..at + len].copy_from_slice(&data);
                    }
                    1 => {
                        overlay.set_len(at as u64).unwrap();
                        model.resize(at, 0);
                    }
                    _ => {
                        let mut read = vec![0; len];
                        let outcome = overlay.read(at as u64, &mut read);
                        match model.get(at..at + len) {
                            Some(expected) => prop_assert_eq!(&read, expected),
                            None => prop_assert!(outcome.is_err()),
                        }
                    }
                }
                prop_assert_eq!(overlay.len().unwrap(), model.len() as u64);
            }
            let mut read = vec![0; model.len()];
            overlay.read(0, &mut read).unwrap();
            prop_assert_eq!(read, model);
            let mut unchanged = Vec::new();
            file.seek(SeekFrom::Start(0)).unwrap();
            file.read_to_end(&mut unchanged).unwrap();
            prop_assert_eq!(unchanged, content());
        }
    }
}
