//! What a store holds that nothing else can be made from: documents, computed vectors, schemas, names.
//! Keys, expiries and the log of changes follow from the documents.

use std::io::{self, ErrorKind, Read, Write};

use crate::block::Block;
use crate::cursor::Cursor;
use crate::error::shown;
use crate::limits;
use crate::seal::unseal;
use crate::tables::corrupt;
use crate::vector::{VECTOR_KEY_BYTES, VectorKey};
use crate::{CollectionVersion, DocId, Document, NameTarget, StoreError, record};

/// One row, with its own checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) kind: Kind,
    /// The row's key as bytes.
    pub(crate) key: Vec<u8>,
    pub(crate) row: Vec<u8>,
}

/// The table a row is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Document,
    /// A block of them.
    Vectors,
    Schema,
    Name,
}

/// A row that was verified.
#[derive(Debug)]
pub(crate) enum Verified {
    Document(DocId, Document),
    Vectors([u8; VECTOR_KEY_BYTES], Vec<VectorKey>),
    Schema(CollectionVersion),
    Name(String, NameTarget),
}

impl Kind {
    pub(crate) const ALL: [Kind; 4] = [Kind::Document, Kind::Vectors, Kind::Schema, Kind::Name];

    pub(crate) fn table(self) -> &'static str {
        match self {
            Kind::Document => "documents",
            Kind::Vectors => "vectors",
            Kind::Schema => "schemas",
            Kind::Name => "names",
        }
    }

    fn code(self) -> u8 {
        self as u8 + 1
    }
}

/// Ends a stream of items.
const END: u8 = 0;
/// Longest row: the largest document and what is around it, or a block of one vector.
const ROW_BYTES_MAX: usize = limits::DOCUMENT_BYTES_MAX + (16 << 20);

impl Item {
    pub(crate) fn document(doc: u64, row: &[u8]) -> Item {
        Item { kind: Kind::Document, key: doc.to_le_bytes().to_vec(), row: row.to_vec() }
    }

    pub(crate) fn schema(id: u32, version: u32, row: &[u8]) -> Item {
        let key = CollectionVersion { id, version }.encode().to_vec();
        Item { kind: Kind::Schema, key, row: row.to_vec() }
    }

    /// Takes the row apart and checks all of it.
    pub(crate) fn verify(&self) -> Result<Verified, StoreError> {
        self.decode().map_err(|reason| corrupt(self.kind.table(), self.place(), reason))
    }

    fn decode(&self) -> Result<Verified, &'static str> {
        const LENGTH: &str = "its key has another length";
        match self.kind {
            Kind::Document => {
                let doc = DocId(u64::from_le_bytes(self.key[..].try_into().map_err(|_| LENGTH)?));
                Ok(Verified::Document(doc, record::decode(doc, &self.row)?))
            }
            Kind::Vectors => {
                let key: [u8; VECTOR_KEY_BYTES] = self.key[..].try_into().map_err(|_| LENGTH)?;
                let of = VectorKey::decode(&key);
                let block = Block::decode(&key, &self.row)?;
                let keys = block.entries().iter();
                let keys = keys.map(|entry| VectorKey { doc: entry.doc, passage: entry.passage, ..of });
                Ok(Verified::Vectors(key, keys.collect()))
            }
            Kind::Schema => {
                let mut cursor = Cursor(&self.key);
                let number = |bytes: [u8; 4]| u32::from_be_bytes(bytes);
                let collection =
                    CollectionVersion { id: number(cursor.array()?), version: number(cursor.array()?) };
                cursor.end()?;
                unseal(&collection.encode(), &self.row)?;
                Ok(Verified::Schema(collection))
            }
            Kind::Name => {
                let (name, target) = NameTarget::decode(&self.key, &self.row)?;
                Ok(Verified::Name(name, target))
            }
        }
    }

    /// The row's key as a message shows it.
    fn place(&self) -> String {
        match self.kind {
            Kind::Document => self.key[..]
                .try_into()
                .map_or_else(|_| shown(&self.key), |key| u64::from_le_bytes(key).to_string()),
            Kind::Vectors | Kind::Schema | Kind::Name => shown(&self.key),
        }
    }

    /// `kind u8 | key length u16 | row length u32 | key | row`, little-endian.
    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let key = u16::try_from(self.key.len()).expect("names are short, other keys have fixed lengths");
        let row = u32::try_from(self.row.len()).expect("a row is at most ROW_BYTES_MAX long");
        out.write_all(&[self.kind.code()])?;
        out.write_all(&key.to_le_bytes())?;
        out.write_all(&row.to_le_bytes())?;
        out.write_all(&self.key)?;
        out.write_all(&self.row)
    }

    pub(crate) fn write_end(out: &mut impl Write) -> io::Result<()> {
        out.write_all(&[END])
    }

    /// The next item; `None` at the end.
    pub(crate) fn read(input: &mut impl Read) -> io::Result<Option<Item>> {
        let mut code = [0];
        input.read_exact(&mut code)?;
        if code == [END] {
            return Ok(None);
        }
        let malformed = |reason: &str| io::Error::new(ErrorKind::InvalidData, reason.to_owned());
        let kind = Kind::ALL.into_iter().find(|kind| [kind.code()] == code);
        let kind = kind.ok_or_else(|| malformed("unknown kind of row"))?;
        let (mut key_len, mut row_len) = ([0; 2], [0; 4]);
        input.read_exact(&mut key_len)?;
        input.read_exact(&mut row_len)?;
        let row_len = u32::from_le_bytes(row_len) as usize;
        if row_len > ROW_BYTES_MAX {
            return Err(malformed("a row is longer than any can be"));
        }
        let mut key = vec![0; usize::from(u16::from_le_bytes(key_len))];
        let mut row = vec![0; row_len];
        input.read_exact(&mut key)?;
        input.read_exact(&mut row)?;
        Ok(Some(Item { kind, key, row }))
    }
}
