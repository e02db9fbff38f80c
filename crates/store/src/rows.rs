//! Iterating over a table of one commit.

use redb::{Key, OwnedRange};

use crate::StoreError;
use crate::contain::contain;

/// Rows of a range, decoded; ends at the first `None` or error. Keeps its view alive by itself.
pub(crate) struct Rows<K: Key + 'static, F> {
    range: Option<OwnedRange<K, &'static [u8]>>,
    decode: F,
}

impl<K: Key + 'static, F> Rows<K, F> {
    pub(crate) fn new<T>(range: OwnedRange<K, &'static [u8]>, decode: F) -> Rows<K, F>
    where
        F: for<'r> FnMut(K::SelfType<'r>, &'r [u8]) -> Result<Option<T>, StoreError>,
    {
        Rows { range: Some(range), decode }
    }
}

impl<K, F, T> Iterator for Rows<K, F>
where
    K: Key + 'static,
    F: for<'r> FnMut(K::SelfType<'r>, &'r [u8]) -> Result<Option<T>, StoreError>,
{
    type Item = Result<T, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let range = self.range.as_mut()?;
        let decode = &mut self.decode;
        let row = contain(|| match range.next() {
            Some(row) => {
                let (key, value) = row?;
                decode(key.value(), value.value())
            }
            None => Ok(None),
        });
        if !matches!(row, Ok(Some(_))) {
            self.range = None;
        }
        row.transpose()
    }
}
