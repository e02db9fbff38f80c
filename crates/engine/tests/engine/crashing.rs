//! A machine that loses power or whose disk fails: a store file and a folder of snapshots on one
//! disk, whose calls are counted together.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind, Read, Write},
    sync::{Arc, Mutex},
};

use engine::{Folder, NewFile};
use redb::StorageBackend as _;

use crate::disks::{Disk, Fault, SplitMix64};

/// The disk of the store and the folder beside it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machine {
    pub(crate) disk: Disk,
    pub(crate) folder: CrashingFolder,
}

impl Machine {
    pub(crate) fn with_fault(fault: Fault) -> Machine {
        Machine::of(Disk::with_fault(fault), Files::default())
    }

    /// The same disk, on which nothing fails any more.
    pub(crate) fn mended(&self) -> Machine {
        Machine::of(Disk::with_bytes(self.disk.bytes()), self.folder.files.lock().unwrap().clone())
    }

    /// What is found after losing power now.
    pub(crate) fn after_power_loss(&self, seed: u64) -> Machine {
        let files = self.folder.files.lock().unwrap().after_power_loss(&mut SplitMix64(seed ^ 0x736e_6170));
        Machine::of(self.disk.after_power_loss(seed), files)
    }

    /// A machine on which these files lie, all of them durable.
    pub(crate) fn holding(store: Vec<u8>, snapshots: &BTreeMap<String, Vec<u8>>) -> Machine {
        let mut files = Files::default();
        for (number, (name, bytes)) in snapshots.iter().enumerate() {
            files.contents.push(Content { synced: bytes.len(), bytes: bytes.clone() });
            files.names.insert(name.clone(), number);
        }
        files.durable_names = files.names.clone();
        Machine::of(Disk::with_bytes(store), files)
    }

    /// The files of the folder as they are read.
    pub(crate) fn snapshots(&self) -> BTreeMap<String, Vec<u8>> {
        let files = self.folder.files.lock().unwrap();
        files.names.iter().map(|(name, file)| (name.clone(), files.contents[*file].bytes.clone())).collect()
    }

    fn of(disk: Disk, files: Files) -> Machine {
        let folder = CrashingFolder { files: Arc::new(Mutex::new(files)), disk: disk.clone() };
        Machine { disk, folder }
    }
}

/// Files in memory, of which what was not synced may be lost: contents sector by sector, names in the
/// order they were changed in.
#[derive(Clone, Debug, Default)]
pub(crate) struct CrashingFolder {
    files: Arc<Mutex<Files>>,
    /// Counts the calls, and fails.
    disk: Disk,
}

#[derive(Clone, Debug, Default)]
struct Files {
    /// By number.
    contents: Vec<Content>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Changes of names since they were last made durable.
    renaming: Vec<Naming>,
}

#[derive(Clone, Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    /// How much of it is certain to survive.
    synced: usize,
}

#[derive(Clone, Debug)]
enum Naming {
    Given { name: String, file: usize },
    Renamed { from: String, to: String },
    Removed { name: String },
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Naming::Given { name, file } => {
                names.insert(name.clone(), *file);
            }
            Naming::Renamed { from, to } => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            Naming::Removed { name } => {
                names.remove(name);
            }
        }
    }
}

impl Files {
    fn name(&mut self, naming: Naming) {
        naming.apply(&mut self.names);
        self.renaming.push(naming);
    }

    fn after_power_loss(&self, random: &mut SplitMix64) -> Files {
        const SECTOR_BYTES: usize = 512;
        let mut names = self.durable_names.clone();
        let kept = random.next() as usize % (self.renaming.len() + 1);
        self.renaming[..kept].iter().for_each(|naming| naming.apply(&mut names));
        let contents = self.contents.iter().map(|content| {
            let mut bytes = content.bytes.clone();
            // The length may be there without the bytes, and bytes in any order.
            bytes.truncate(content.synced + random.next() as usize % (bytes.len() - content.synced + 1));
            for sector in bytes[content.synced..].chunks_mut(SECTOR_BYTES) {
                if random.next().is_multiple_of(2) {
                    sector.fill(0);
                }
            }
            Content { synced: bytes.len(), bytes }
        });
        Files { contents: contents.collect(), durable_names: names.clone(), names, renaming: Vec::new() }
    }
}

impl CrashingFolder {
    /// Every call counts as one of the disk.
    fn call(&self) -> io::Result<()> {
        self.disk.len().map(drop)
    }
}

impl Folder for CrashingFolder {
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

    fn create(&self, name: &str) -> io::Result<Box<dyn NewFile>> {
        self.call()?;
        let mut files = self.files.lock().unwrap();
        let file = files.contents.len();
        files.contents.push(Content::default());
        files.name(Naming::Given { name: name.to_owned(), file });
        Ok(Box::new(CrashingFile { folder: self.clone(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.call()?;
        self.files.lock().unwrap().name(Naming::Renamed { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.call()?;
        let mut files = self.files.lock().unwrap();
        if !files.names.contains_key(name) {
            return Err(ErrorKind::NotFound.into());
        }
        files.name(Naming::Removed { name: name.to_owned() });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.call()?;
        let mut files = self.files.lock().unwrap();
        files.durable_names = files.names.clone();
        files.renaming.clear();
        Ok(())
    }
}

struct CrashingFile {
    folder: CrashingFolder,
    file: usize,
}

impl Write for CrashingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let outcome = self.folder.call();
        // A write that fails may be half done.
        let written = if outcome.is_ok() { bytes } else { &bytes[..bytes.len() / 2] };
        let mut files = self.folder.files.lock().unwrap();
        files.contents[self.file].bytes.extend_from_slice(written);
        outcome.map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl NewFile for CrashingFile {
    fn sync(&mut self) -> io::Result<()> {
        self.folder.call()?;
        let content = &mut self.folder.files.lock().unwrap().contents[self.file];
        content.synced = content.bytes.len();
        Ok(())
    }
}
