//! Arrays with a maximum length.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};

/// An array of at most `MAX` elements. Further elements are counted but not kept, since an array such as `[{},{},...]`
/// takes many times its own length in memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct BoundedVec<T, const MAX: usize> {
    elements: Vec<T>,
    count: usize,
}

impl<T, const MAX: usize> BoundedVec<T, MAX> {
    /// The elements, or their number if there are too many.
    pub(crate) fn into_vec(self) -> Result<Vec<T>, usize> {
        if self.count > MAX { Err(self.count) } else { Ok(self.elements) }
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for BoundedVec<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<BoundedVec<T, MAX>, D::Error> {
        struct Elements<T, const MAX: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Elements<T, MAX> {
            type Value = BoundedVec<T, MAX>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a sequence")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<BoundedVec<T, MAX>, A::Error> {
                let mut elements = Vec::new();
                while elements.len() < MAX {
                    match seq.next_element()? {
                        Some(element) => elements.push(element),
                        None => return Ok(BoundedVec { count: elements.len(), elements }),
                    }
                }
                let mut count = elements.len();
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                if count > MAX {
                    elements = Vec::new();
                }
                Ok(BoundedVec { elements, count })
            }
        }

        deserializer.deserialize_seq(Elements(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static READ: Cell<usize> = const { Cell::new(0) };
    }

    /// Counts how often it is deserialized.
    #[derive(Debug, PartialEq)]
    struct CountedNumber(u32);

    impl<'de> Deserialize<'de> for CountedNumber {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<CountedNumber, D::Error> {
            READ.set(READ.get() + 1);
            u32::deserialize(deserializer).map(CountedNumber)
        }
    }

    #[test]
    fn excess_elements_are_counted_but_not_deserialized() {
        let read = |json: &str| {
            READ.set(0);
            (serde_json::from_str::<BoundedVec<CountedNumber, 3>>(json).map(BoundedVec::into_vec), READ.get())
        };
        assert_eq!(read("[]").0.unwrap(), Ok(vec![]));
        assert_eq!(
            read("[1,2,3]").0.unwrap(),
            Ok(vec![CountedNumber(1), CountedNumber(2), CountedNumber(3)])
        );
        for (json, count) in [("[1,2,3,4]", 4), (r#"[1,2,3,"four",{"five":[5]},6]"#, 6)] {
            let (numbers, read) = read(json);
            assert_eq!((numbers.unwrap(), read), (Err(count), 3), "{json}");
        }
        for bad in ["1", "{}", "[1,2,3,4", "[1,\"two\",3,4]", "[1,2,3,}]"] {
            assert!(read(bad).0.is_err(), "{bad}");
        }
    }
}
