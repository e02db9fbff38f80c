//! A machine that loses power or whose disk fails: a store file and a snapshot storage on one disk, whose calls are
//! counted together.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind, Read, Write},
    sync::{Arc, Mutex},
};

use engine::{FileStorage, WritableFile};
use redb::StorageBackend as _;

use crate::disks::{Disk, Fault, SplitMix64};

/// The disk of the store and the storage of the snapshots.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimulatedMachine {
    pub(crate) disk: Disk,
    pub(crate) storage: CrashingStorage,
}

impl SimulatedMachine {
    pub(crate) fn with_fault(fault: Fault) -> SimulatedMachine {
        SimulatedMachine::from_parts(Disk::with_fault(fault), CrashingFiles::default())
    }

    /// The same disk without further faults.
    pub(crate) fn without_faults(&self) -> SimulatedMachine {
        SimulatedMachine::from_parts(
            Disk::with_bytes(self.disk.bytes()),
            self.storage.files.lock().unwrap().clone(),
        )
    }

    /// The state after a power loss at this moment.
    pub(crate) fn after_power_loss(&self, seed: u64) -> SimulatedMachine {
        let files = self.storage.files.lock().unwrap().after_power_loss(&mut SplitMix64(seed ^ 0x736e_6170));
        SimulatedMachine::from_parts(self.disk.after_power_loss(seed), files)
    }

    /// A machine with these files, all of them durable.
    pub(crate) fn with_files(store: Vec<u8>, snapshots: &BTreeMap<String, Vec<u8>>) -> SimulatedMachine {
        let mut files = CrashingFiles::default();
        for (number, (name, bytes)) in snapshots.iter().enumerate() {
            files.contents.push(Content { synced: bytes.len(), bytes: bytes.clone() });
            files.names.insert(name.clone(), number);
        }
        files.durable_names = files.names.clone();
        SimulatedMachine::from_parts(Disk::with_bytes(store), files)
    }

    /// The current content of the snapshot files.
    pub(crate) fn snapshots(&self) -> BTreeMap<String, Vec<u8>> {
        let files = self.storage.files.lock().unwrap();
        files.names.iter().map(|(name, file)| (name.clone(), files.contents[*file].bytes.clone())).collect()
    }

    fn from_parts(disk: Disk, files: CrashingFiles) -> SimulatedMachine {
        let storage = CrashingStorage { files: Arc::new(Mutex::new(files)), disk: disk.clone() };
        SimulatedMachine { disk, storage }
    }
}

/// CrashingFiles in memory. What was not synced may be lost: contents sector by sector, names in the order of their changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct CrashingStorage {
    files: Arc<Mutex<CrashingFiles>>,
    /// Counts calls and injects faults.
    disk: Disk,
}

#[derive(Clone, Debug, Default)]
struct CrashingFiles {
    /// By number.
    contents: Vec<Content>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Changes of names since the last sync, in order.
    unsynced_names: Vec<NameChange>,
}

#[derive(Clone, Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    /// Number of bytes that survive a power loss for certain.
    synced: usize,
}

#[derive(Clone, Debug)]
enum NameChange {
    Created { name: String, file: usize },
    Renamed { from: String, to: String },
    Removed { name: String },
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            NameChange::Created { name, file } => {
                names.insert(name.clone(), *file);
            }
            NameChange::Renamed { from, to } => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            NameChange::Removed { name } => {
                names.remove(name);
            }
        }
    }
}

impl CrashingFiles {
    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
    }

    fn after_power_loss(&self, random: &mut SplitMix64) -> CrashingFiles {
        const SECTOR_BYTES: usize = 512;
        let mut names = self.durable_names.clone();
        let kept = random.next() as usize % (self.unsynced_names.len() + 1);
        self.unsynced_names[..kept].iter().for_each(|change| change.apply(&mut names));
        let contents = self.contents.iter().map(|content| {
            let mut bytes = content.bytes.clone();
            // The new length may survive without the bytes, and any of the sectors may survive.
            bytes.truncate(content.synced + random.next() as usize % (bytes.len() - content.synced + 1));
            for sector in bytes[content.synced..].chunks_mut(SECTOR_BYTES) {
                if random.next().is_multiple_of(2) {
                    sector.fill(0);
                }
            }
            Content { synced: bytes.len(), bytes }
        });
        CrashingFiles {
            contents: contents.collect(),
            durable_names: names.clone(),
            names,
            unsynced_names: Vec::new(),
        }
    }
}

impl CrashingStorage {
    /// Every call counts as a call of the disk.
    fn call(&self) -> io::Result<()> {
        self.disk.len().map(drop)
    }
}

impl FileStorage for CrashingStorage {
    fn names(&self) -> io::Result<Vec<String>> {
        self.call()?;
        Ok(self.files.lock().unwrap().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Read>> {
        self.call()?;
        let files = self.files.lock().unwrap();
        let file = *files.names.get(name).ok_or(ErrorKind::NotFound)?;
        Ok(Box::new(io::Cursor::new(files.contents[file].bytes.clone())))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn WritableFile>> {
        self.call()?;
        let mut files = self.files.lock().unwrap();
        let file = files.contents.len();
        files.contents.push(Content::default());
        files.change_name(NameChange::Created { name: name.to_owned(), file });
        Ok(Box::new(CrashingFile { storage: self.clone(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.call()?;
        self.files
            .lock()
            .unwrap()
            .change_name(NameChange::Renamed { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.call()?;
        let mut files = self.files.lock().unwrap();
        if !files.names.contains_key(name) {
            return Err(ErrorKind::NotFound.into());
        }
        files.change_name(NameChange::Removed { name: name.to_owned() });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.call()?;
        let mut files = self.files.lock().unwrap();
        files.durable_names = files.names.clone();
        files.unsynced_names.clear();
        Ok(())
    }
}

struct CrashingFile {
    storage: CrashingStorage,
    file: usize,
}

impl Write for CrashingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let outcome = self.storage.call();
        // A failed write may have been half done.
        let written = if outcome.is_ok() { bytes } else { &bytes[..bytes.len() / 2] };
        let mut files = self.storage.files.lock().unwrap();
        files.contents[self.file].bytes.extend_from_slice(written);
        outcome.map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl WritableFile for CrashingFile {
    fn sync(&mut self) -> io::Result<()> {
        self.storage.call()?;
        let content = &mut self.storage.files.lock().unwrap().contents[self.file];
        content.synced = content.bytes.len();
        Ok(())
    }
}
