//! Iterating over a table of one commit.

use redb::{Key, OwnedRange, ReadOnlyTable, ReadableTableMetadata};

use crate::StoreError;
use crate::contain::contain;
use crate::tables::corrupt;

type Bytes = &'static [u8];

/// The place of what is wrong with no row alone.
const ALL: &str = "all";
pub(crate) const COUNT: &str = "there are more or fewer rows than it says";

/// Rows of a range, decoded; ends at the first `None` or error. Keeps its view alive by itself.
///
/// A page that says it has no rows is passed over by redb without a word, and one that is reached in place of
/// another has rows that are right by themselves. So rows must ascend, and all rows of a table be as many as it says.
pub(crate) struct Rows<K: Key + 'static, F> {
    range: Option<OwnedRange<K, Bytes>>,
    table: &'static str,
    order: Order,
    /// Rows still to come, where it is the whole table.
    left: Option<u64>,
    decode: F,
}

impl<K: Key + 'static, F> Rows<K, F> {
    /// Rows of a range of the table called `table`.
    pub(crate) fn within<T>(range: OwnedRange<K, Bytes>, table: &'static str, decode: F) -> Rows<K, F>
    where
        F: for<'r> FnMut(K::SelfType<'r>, &'r [u8]) -> Result<Option<T>, StoreError>,
    {
        Rows { range: Some(range), table, order: Order::default(), left: None, decode }
    }

    /// All rows of `table`, which is called `name`.
    pub(crate) fn of<T>(
        table: &ReadOnlyTable<K, Bytes>,
        name: &'static str,
        decode: F,
    ) -> Result<Rows<K, F>, StoreError>
    where
        F: for<'r> FnMut(K::SelfType<'r>, &'r [u8]) -> Result<Option<T>, StoreError>,
    {
        let (range, len) = contain(|| Ok((table.range_owned::<K::SelfType<'_>>(..)?, table.len()?)))?;
        Ok(Rows { left: Some(len), ..Rows::within(range, name, decode) })
    }
}

impl<K, F, T> Iterator for Rows<K, F>
where
    K: Key + 'static,
    F: for<'r> FnMut(K::SelfType<'r>, &'r [u8]) -> Result<Option<T>, StoreError>,
{
    type Item = Result<T, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Rows { range, table, order, left, decode } = self;
        let range_left = range.as_mut()?;
        let row = contain(|| match range_left.next() {
            Some(row) => {
                let (key, value) = row?;
                let key = key.value();
                if !order.admits::<K>(&key) {
                    return Err(corrupt(table, ALL, "rows do not stand in their order"));
                }
                if let Some(left) = left {
                    *left = left.checked_sub(1).ok_or_else(|| corrupt(table, ALL, COUNT))?;
                }
                decode(key, value.value())
            }
            None if left.is_some_and(|left| left > 0) => Err(corrupt(table, ALL, COUNT)),
            None => Ok(None),
        });
        if !matches!(row, Ok(Some(_))) {
            *range = None;
        }
        row.transpose()
    }
}

/// The keys that came last, to see that they ascend.
#[derive(Debug, Default)]
pub(crate) struct Order(Option<Vec<u8>>);

impl Order {
    /// Whether `key` comes after all that were admitted.
    pub(crate) fn admits<K: Key>(&mut self, key: &K::SelfType<'_>) -> bool {
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
