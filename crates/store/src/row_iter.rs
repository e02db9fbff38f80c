//! Iterating over a table of one snapshot.

use redb::{Key, OwnedRange, ReadOnlyTable, ReadableTableMetadata};

use crate::StoreError;
use crate::panic::catch_panic;
use crate::tables::{Bytes, corrupt};

/// The key in errors that concern a whole table.
const ALL: &str = "all";
pub(crate) const ROW_COUNT_MISMATCH: &str = "the number of rows differs from the table's row count";

/// Iterates over decoded rows and ends at the first `None` or error. It keeps its snapshot alive.
///
/// redb silently skips a page whose row count was damaged to zero, and if one page is read in place of
/// another, its rows pass their own checksums. So the iterator also verifies that keys ascend and, for a
/// whole table, that the number of rows matches the table's row count.
pub(crate) struct RowIter<K: Key + 'static, F> {
    range: Option<OwnedRange<K, Bytes>>,
    table: &'static str,
    order: KeyOrder,
    /// Number of rows still expected, when iterating over a whole table.
    remaining: Option<u64>,
    decode: F,
}

impl<K: Key + 'static, F> RowIter<K, F> {
    /// Iterates over a range of the table called `table`.
    pub(crate) fn range<T>(range: OwnedRange<K, Bytes>, table: &'static str, decode: F) -> RowIter<K, F>
    where
        F: for<'r> FnMut(K::SelfType<'r>, &'r [u8]) -> Result<Option<T>, StoreError>,
    {
        RowIter { range: Some(range), table, order: KeyOrder::default(), remaining: None, decode }
    }

    /// Iterates over all rows of `table`, which is called `name`.
    pub(crate) fn table<T>(
        table: &ReadOnlyTable<K, Bytes>,
        name: &'static str,
        decode: F,
    ) -> Result<RowIter<K, F>, StoreError>
    where
        F: for<'r> FnMut(K::SelfType<'r>, &'r [u8]) -> Result<Option<T>, StoreError>,
    {
        let (range, len) = catch_panic(|| Ok((table.range_owned::<K::SelfType<'_>>(..)?, table.len()?)))?;
        Ok(RowIter { remaining: Some(len), ..RowIter::range(range, name, decode) })
    }
}

impl<K, F, T> Iterator for RowIter<K, F>
where
    K: Key + 'static,
    F: for<'r> FnMut(K::SelfType<'r>, &'r [u8]) -> Result<Option<T>, StoreError>,
{
    type Item = Result<T, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let RowIter { range, table, order, remaining, decode } = self;
        let rows = range.as_mut()?;
        let row = catch_panic(|| match rows.next() {
            Some(row) => {
                let (key, value) = row?;
                let key = key.value();
                if !order.accept::<K>(&key) {
                    return Err(corrupt(table, ALL, "rows are out of order"));
                }
                if let Some(remaining) = remaining {
                    *remaining =
                        remaining.checked_sub(1).ok_or_else(|| corrupt(table, ALL, ROW_COUNT_MISMATCH))?;
                }
                decode(key, value.value())
            }
            None if remaining.is_some_and(|remaining| remaining > 0) => {
                Err(corrupt(table, ALL, ROW_COUNT_MISMATCH))
            }
            None => Ok(None),
        });
        if !matches!(row, Ok(Some(_))) {
            *range = None;
        }
        row.transpose()
    }
}

/// Verifies that keys ascend.
#[derive(Debug, Default)]
pub(crate) struct KeyOrder(Option<Vec<u8>>);

impl KeyOrder {
    /// Whether `key` is greater than all earlier keys.
    pub(crate) fn accept<K: Key>(&mut self, key: &K::SelfType<'_>) -> bool {
        let key = K::as_bytes(key);
        match &mut self.0 {
            Some(last) if K::compare(last, key.as_ref()).is_ge() => return false,
            Some(last) => {
                last.clear();
                last.extend_from_slice(key.as_ref());
            }
            None => self.0 = Some(key.as_ref().to_vec()),
        }
        true
    }
}
