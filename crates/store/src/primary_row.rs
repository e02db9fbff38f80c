//! Primary rows: documents, blocks of computed vectors, schemas and names. The other tables (keys,
//! expiries, change log) are derived from the documents.

use std::io::{self, ErrorKind, Read, Write};

use crate::block::Block;
use crate::checksum::strip_checksum;
use crate::cursor::Cursor;
use crate::error::printable;
use crate::limits;
use crate::tables::corrupt;
use crate::vector_key::{VECTOR_KEY_BYTES, VectorKey};
use crate::{CollectionVersion, DocId, Document, NameTarget, StoreError, record};

/// A row of a primary table, including its checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PrimaryRow {
    pub(crate) kind: RowKind,
    /// The key in the table, as bytes.
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

/// The kind of a primary row, which determines its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowKind {
    Document,
    /// A block of vectors.
    Vectors,
    Schema,
    Name,
}

/// A decoded row whose checksum was verified.
#[derive(Debug)]
pub(crate) enum VerifiedRow {
    Document(DocId, Document),
    Vectors([u8; VECTOR_KEY_BYTES], Vec<VectorKey>),
    Schema(CollectionVersion),
    Name(String, NameTarget),
}

impl RowKind {
    pub(crate) const ALL: [RowKind; 4] =
        [RowKind::Document, RowKind::Vectors, RowKind::Schema, RowKind::Name];

    pub(crate) fn table(self) -> &'static str {
        match self {
            RowKind::Document => "documents",
            RowKind::Vectors => "vectors",
            RowKind::Schema => "schemas",
            RowKind::Name => "names",
        }
    }

    fn code(self) -> u8 {
        self as u8 + 1
    }
}

/// Marks the end of a stream of rows.
const END: u8 = 0;
/// Maximum length of a row. It leaves room for the largest document and its encoding.
const ROW_BYTES_MAX: usize = limits::DOCUMENT_BYTES_MAX + (16 << 20);

impl PrimaryRow {
    pub(crate) fn document(doc: u64, row: &[u8]) -> PrimaryRow {
        PrimaryRow { kind: RowKind::Document, key: doc.to_le_bytes().to_vec(), value: row.to_vec() }
    }

    pub(crate) fn schema(id: u32, version: u32, row: &[u8]) -> PrimaryRow {
        let key = CollectionVersion { id, version }.encode().to_vec();
        PrimaryRow { kind: RowKind::Schema, key, value: row.to_vec() }
    }

    /// Decodes the row and verifies its checksum.
    pub(crate) fn verify(&self) -> Result<VerifiedRow, StoreError> {
        self.decode().map_err(|reason| corrupt(self.kind.table(), self.printable_key(), reason))
    }

    fn decode(&self) -> Result<VerifiedRow, &'static str> {
        const LENGTH: &str = "its key has the wrong length";
        match self.kind {
            RowKind::Document => {
                let doc = DocId(u64::from_le_bytes(self.key[..].try_into().map_err(|_| LENGTH)?));
                Ok(VerifiedRow::Document(doc, record::decode(doc, &self.value)?))
            }
            RowKind::Vectors => {
                let key: [u8; VECTOR_KEY_BYTES] = self.key[..].try_into().map_err(|_| LENGTH)?;
                let first = VectorKey::decode(&key);
                let block = Block::decode(&key, &self.value)?;
                let keys = block.entries().iter();
                let keys = keys.map(|entry| VectorKey { doc: entry.doc, passage: entry.passage, ..first });
                Ok(VerifiedRow::Vectors(key, keys.collect()))
            }
            RowKind::Schema => {
                let mut cursor = Cursor(&self.key);
                let number = |bytes: [u8; 4]| u32::from_be_bytes(bytes);
                let collection =
                    CollectionVersion { id: number(cursor.array()?), version: number(cursor.array()?) };
                cursor.end()?;
                strip_checksum(&collection.encode(), &self.value)?;
                Ok(VerifiedRow::Schema(collection))
            }
            RowKind::Name => {
                let (name, target) = NameTarget::decode(&self.key, &self.value)?;
                Ok(VerifiedRow::Name(name, target))
            }
        }
    }

    /// The row's key in printable form, for messages.
    fn printable_key(&self) -> String {
        match self.kind {
            RowKind::Document => self.key[..]
                .try_into()
                .map_or_else(|_| printable(&self.key), |key| u64::from_le_bytes(key).to_string()),
            RowKind::Vectors | RowKind::Schema | RowKind::Name => printable(&self.key),
        }
    }

    /// `kind u8 | key length u16 | value length u32 | key | value`, little-endian.
    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let key = u16::try_from(self.key.len()).expect("names are short, other keys have fixed lengths");
        let value = u32::try_from(self.value.len()).expect("a row is at most ROW_BYTES_MAX long");
        out.write_all(&[self.kind.code()])?;
        out.write_all(&key.to_le_bytes())?;
        out.write_all(&value.to_le_bytes())?;
        out.write_all(&self.key)?;
        out.write_all(&self.value)
    }

    pub(crate) fn write_end(out: &mut impl Write) -> io::Result<()> {
        out.write_all(&[END])
    }

    /// Reads the next row, or `None` at the end marker.
    pub(crate) fn read(input: &mut impl Read) -> io::Result<Option<PrimaryRow>> {
        let mut code = [0];
        input.read_exact(&mut code)?;
        if code == [END] {
            return Ok(None);
        }
        let malformed = |reason: &str| io::Error::new(ErrorKind::InvalidData, reason.to_owned());
        let kind = RowKind::ALL.into_iter().find(|kind| [kind.code()] == code);
        let kind = kind.ok_or_else(|| malformed("unknown kind of row"))?;
        let (mut key_len, mut value_len) = ([0; 2], [0; 4]);
        input.read_exact(&mut key_len)?;
        input.read_exact(&mut value_len)?;
        let value_len = u32::from_le_bytes(value_len) as usize;
        if value_len > ROW_BYTES_MAX {
            return Err(malformed("the length of a row exceeds the maximum"));
        }
        let mut key = vec![0; usize::from(u16::from_le_bytes(key_len))];
        let mut value = vec![0; value_len];
        input.read_exact(&mut key)?;
        input.read_exact(&mut value)?;
        Ok(Some(PrimaryRow { kind, key, value }))
    }
}
