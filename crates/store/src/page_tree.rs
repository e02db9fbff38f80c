//! Verifies the pages that a damaged bit could make redb overwrite others by.
//!
//! redb keeps a checksum of every page in the page that points to it, but verifies them only when it repairs a file.
//! Most damage in pages with rows is noticed all the same, because every row has a checksum of its own. Damage in redb's
//! lists of free pages, and in pointers to pages, is not: redb may then panic, or put new rows where others are. So
//! before a file is opened that is too long to be verified completely, this reads redb's own tables completely, and of
//! the others the pages with pointers, which are about one in a hundred. The layout is that of redb's file format 3.

use std::io;

use redb::StorageBackend as _;
use xxhash_rust::xxh3::xxh3_128;

use crate::shared_backend::SharedBackend;

const FILE_FORMAT: u8 = 3;
const PAGE_BYTES: u64 = 4096;
const HEADER_BYTES: usize = 320;
const FLAGS_AT: usize = 9;
const SECOND_SLOT_IS_LAST: u8 = 1;
const TWO_PHASE_COMMIT: u8 = 4;
const REGION_HEADER_PAGES_AT: usize = 16;
const REGION_DATA_PAGES_AT: usize = 20;
const SLOTS_AT: usize = 64;
const SLOT_BYTES: usize = 128;
const SLOT_CHECKSUM_AT: usize = SLOT_BYTES - 16;
const LEAF: u8 = 1;
const BRANCH: u8 = 2;
/// No tree of a file is deeper.
const DEPTH_MAX: usize = 64;
/// Largest page: 2^20 times the smallest.
const ORDER_MAX: u32 = 20;

/// Why the pages do not verify.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PageError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Damaged(&'static str),
}

/// Verifies the last commit of a file. A file whose last commit redb verifies by itself is not read.
pub(crate) fn verify(backend: &SharedBackend) -> Result<(), PageError> {
    let len = backend.len()?;
    if len < HEADER_BYTES as u64 {
        return Ok(());
    }
    let mut header = [0; HEADER_BYTES];
    backend.read(0, &mut header)?;
    let flags = header[FLAGS_AT];
    let slot = SLOTS_AT + SLOT_BYTES * usize::from(flags & SECOND_SLOT_IS_LAST != 0);
    let slot = &header[slot..slot + SLOT_BYTES];
    if flags & TWO_PHASE_COMMIT == 0 || slot[0] != FILE_FORMAT {
        // Without the first, redb does not use its lists of free pages, but verifies everything. It rejects any other
        // format by itself.
        return Ok(());
    }
    if xxh3_128(&slot[..SLOT_CHECKSUM_AT]).to_le_bytes() != slot[SLOT_CHECKSUM_AT..] {
        return Err(PageError::Damaged("the last commit does not match its checksum"));
    }
    let pages = Pages {
        backend,
        len,
        region_header_bytes: u64::from(u32_at(&header, REGION_HEADER_PAGES_AT)?) * PAGE_BYTES,
        region_data_bytes: u64::from(u32_at(&header, REGION_DATA_PAGES_AT)?) * PAGE_BYTES,
    };
    // Tables of redb itself, among them the lists of free pages; and tables of this program.
    for (root, is_present, depth) in [(40, slot[2], Depth::Leaves), (8, slot[1], Depth::Branches)] {
        if is_present != 0 {
            pages.verify_tables(Root::at(slot, root)?, depth)?;
        }
    }
    Ok(())
}

/// How much of a tree is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// Everything.
    Leaves,
    /// Pages with pointers.
    Branches,
}

/// The root of a tree: its page and that page's checksum.
#[derive(Clone, Copy)]
struct Root {
    page: u64,
    checksum: u128,
}

impl Root {
    fn at(bytes: &[u8], at: usize) -> Result<Root, PageError> {
        Ok(Root { page: u64_at(bytes, at)?, checksum: u128_at(bytes, at + 8)? })
    }
}

/// Lengths of the keys and values of a table, if all are the same.
#[derive(Clone, Copy)]
struct Widths {
    key: Option<usize>,
    value: Option<usize>,
}

struct Pages<'b> {
    backend: &'b SharedBackend,
    len: u64,
    region_header_bytes: u64,
    region_data_bytes: u64,
}

const TRUNCATED: PageError = PageError::Damaged("a page is too short for its contents");

impl Pages<'_> {
    /// Verifies a tree whose values describe tables, and the trees of these tables as far as `depth`.
    fn verify_tables(&self, root: Root, depth: Depth) -> Result<(), PageError> {
        let variable = Widths { key: None, value: None };
        let mut tables = Vec::new();
        self.verify_tree(root, variable, Depth::Leaves, &mut |leaf| {
            let count = usize::from(u16_at(leaf, 2)?);
            let ends = |number: usize| u32_at(leaf, 4 + 4 * number).map(|end| end as usize);
            let mut start = ends(count.checked_sub(1).ok_or(TRUNCATED)?)?;
            for number in 0..count {
                let end = ends(count + number)?;
                tables.push(TableRoot::decode(leaf.get(start..end).ok_or(TRUNCATED)?)?);
                start = end;
            }
            Ok(())
        })?;
        for TableRoot { root, widths } in tables.into_iter().flatten() {
            self.verify_tree(root, widths, depth, &mut |_| Ok(()))?;
        }
        Ok(())
    }

    fn verify_tree(
        &self,
        root: Root,
        widths: Widths,
        depth: Depth,
        visit_leaf: &mut impl FnMut(&[u8]) -> Result<(), PageError>,
    ) -> Result<(), PageError> {
        // All leaves are equally deep.
        let mut height = 0;
        if depth == Depth::Branches {
            let mut page = root.page;
            while let Some(first) = self.first_child(page)? {
                page = first;
                height += 1;
                if height > DEPTH_MAX {
                    return Err(PageError::Damaged("pages point to each other"));
                }
            }
        }
        let mut waiting = vec![(root, 0)];
        while let Some((Root { page, checksum }, level)) = waiting.pop() {
            if depth == Depth::Branches && level == height {
                continue;
            }
            if level > DEPTH_MAX {
                return Err(PageError::Damaged("pages point to each other"));
            }
            let page = self.read(page)?;
            let contents = page.get(..contents_end(&page, widths)?).ok_or(TRUNCATED)?;
            if xxh3_128(contents) != checksum {
                return Err(PageError::Damaged("a page does not match its checksum"));
            }
            if page[0] == LEAF {
                visit_leaf(contents)?;
                continue;
            }
            let children = usize::from(u16_at(contents, 2)?) + 1;
            for child in 0..children {
                let checksum = u128_at(contents, 8 + 16 * child)?;
                let page = u64_at(contents, 8 + 16 * children + 8 * child)?;
                waiting.push((Root { page, checksum }, level + 1));
            }
        }
        Ok(())
    }

    /// The first page that a page points to; `None` if it is a leaf.
    fn first_child(&self, page: u64) -> Result<Option<u64>, PageError> {
        let page = self.read(page)?;
        if page[0] != BRANCH {
            return Ok(None);
        }
        let children = usize::from(u16_at(&page, 2)?) + 1;
        u64_at(&page, 8 + 16 * children).map(Some)
    }

    /// Reads the page with this number: its index in a region in the lowest 20 bits, the region in the next 20, and in
    /// the highest five how often the size of a page is doubled.
    fn read(&self, number: u64) -> Result<Vec<u8>, PageError> {
        let outside = PageError::Damaged("a pointer to a page leads out of the file");
        let order = (number >> 59) as u32;
        if order > ORDER_MAX {
            return Err(outside);
        }
        let index = number & (0xf_ffff >> order);
        let region = (number >> 20) & 0xf_ffff;
        let bytes = PAGE_BYTES << order;
        let start = PAGE_BYTES
            + region * (self.region_header_bytes + self.region_data_bytes)
            + self.region_header_bytes
            + index * bytes;
        if start + bytes > self.len {
            return Err(outside);
        }
        let mut page = vec![0; usize::try_from(bytes).map_err(|_| outside)?];
        self.backend.read(start, &mut page)?;
        Ok(page)
    }
}

/// Where the contents of a page end. Its checksum covers them.
fn contents_end(page: &[u8], Widths { key, value }: Widths) -> Result<usize, PageError> {
    let count = usize::from(u16_at(page, 2)?);
    let last = count.checked_sub(1).ok_or(TRUNCATED)?;
    let end_at = |at: usize| u32_at(page, at).map(|end| end as usize);
    match page[0] {
        LEAF => match (key, value) {
            (None, None) => end_at(4 + 4 * count + 4 * last),
            (Some(_), None) => end_at(4 + 4 * last),
            (None, Some(value)) => Ok(end_at(4 + 4 * last)? + value * count),
            (Some(key), Some(value)) => Ok(4 + (key + value) * count),
        },
        BRANCH => {
            let pointers = 8 + 24 * (count + 1);
            match key {
                Some(key) => Ok(pointers + key * count),
                None => end_at(pointers + 4 * last),
            }
        }
        _ => Err(PageError::Damaged("a page has an unknown type")),
    }
}

/// A table that has rows.
struct TableRoot {
    root: Root,
    widths: Widths,
}

impl TableRoot {
    /// `type u8 | rows u64 | flag, root page u64, checksum u128, length u64 | flag, key width u32 | flag, value width u32`
    /// and more.
    fn decode(table: &[u8]) -> Result<Option<TableRoot>, PageError> {
        let width = |at: usize| -> Result<Option<usize>, PageError> {
            let width = u32_at(table, at + 1)? as usize;
            Ok((table[at] != 0).then_some(width))
        };
        let widths = Widths { key: width(42)?, value: width(47)? };
        let root = Root::at(table, 10)?;
        Ok((table[9] != 0).then_some(TableRoot { root, widths }))
    }
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], PageError> {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or(TRUNCATED)
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, PageError> {
    array_at(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, PageError> {
    array_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, PageError> {
    array_at(bytes, at).map(u64::from_le_bytes)
}

fn u128_at(bytes: &[u8], at: usize) -> Result<u128, PageError> {
    array_at(bytes, at).map(u128::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::sync::{Arc, Mutex};

    use redb::StorageBackend;
    use redb::backends::FileBackend;

    use super::*;
    use crate::{Field, OpenError, Options, Store};

    /// Opens a file unverified by redb.
    const OPTIONS: Options = Options { cache_bytes: 1 << 20, verify_bytes_max: 0 };

    /// Records which pages are read.
    #[derive(Debug)]
    struct Recorder {
        file: FileBackend,
        read: Arc<Mutex<BTreeSet<usize>>>,
    }

    impl StorageBackend for Recorder {
        fn len(&self) -> io::Result<u64> {
            self.file.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.read.lock().unwrap().insert(offset as usize);
            self.file.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.file.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.file.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.file.write(offset, data)
        }
    }

    /// A store with tables of several levels, and its file after it was closed, and before.
    fn sample_files() -> [Vec<u8>; 2] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store");
        let store = Store::open(&path, OPTIONS).unwrap();
        for round in 0..3u32 {
            let mut writer = store.write().unwrap();
            for number in (0..4_000u32).step_by(1 + round as usize) {
                let fields = [Field { name: b"f"[..].into(), value: number.to_le_bytes().repeat(20).into() }];
                writer.put(&number.to_be_bytes(), &fields, None).unwrap();
            }
            writer.commit().unwrap();
        }
        let open = fs::read(&path).unwrap();
        drop(store);
        [fs::read(&path).unwrap(), open]
    }

    #[test]
    fn damage_in_pointers_and_free_lists_is_detected_before_anything_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("copy");
        for file in sample_files() {
            fs::write(&path, &file).unwrap();
            let read = Arc::<Mutex<BTreeSet<usize>>>::default();
            let recorder = Recorder {
                file: FileBackend::new(fs::File::open(&path).unwrap()).unwrap(),
                read: read.clone(),
            };
            verify(&SharedBackend::new(recorder)).unwrap();
            let pages: Vec<usize> = read.lock().unwrap().iter().copied().filter(|at| *at > 0).collect();
            assert!(
                pages.len() > 10 && pages.len() < file.len() / 4096 / 4,
                "{} pages are read",
                pages.len()
            );
            let (mut branches, mut leaves, mut undetected) = (0, 0, 0);
            for at in pages {
                let is_branch = file[at] == BRANCH;
                for byte in [0, 2, 8, 21, 30] {
                    let mut damaged = file.clone();
                    damaged[at + byte] ^= 1 << (byte % 8);
                    fs::write(&path, &damaged).unwrap();
                    match Store::open(&path, OPTIONS) {
                        Err(OpenError::Corrupt { .. }) if is_branch => branches += 1,
                        Err(OpenError::Corrupt { .. }) => leaves += 1,
                        Err(other) => panic!("byte {byte} of the page at {at}: {other}"),
                        // A leaf of a table, read only to find the height of its tree. Its rows have checksums of their
                        // own.
                        Ok(_) => {
                            assert!(!is_branch, "byte {byte} of the branch at {at}");
                            undetected += 1;
                        }
                    }
                }
            }
            assert!(branches >= 10 && leaves >= 10, "{branches} in branches, {leaves} in leaves");
            assert!(
                undetected <= 5 * 5,
                "{undetected}: at most one leaf of each of the five tables with rows"
            );
        }
    }
}
