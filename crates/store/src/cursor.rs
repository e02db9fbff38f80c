//! Decoding entries.

/// Splits a number into a tag in its upper bits and a length in its `len_bits` lower bits.
pub(crate) fn tagged_len(number: u32, len_bits: u32) -> (u32, usize) {
    let len = number & ((1 << len_bits) - 1);
    (number >> len_bits, usize::try_from(len).expect("a usize has at least 32 bits"))
}

/// Reads values from the front of an entry.
pub(crate) struct Cursor<'e>(pub(crate) &'e [u8]);

impl<'e> Cursor<'e> {
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or("the entry is truncated")?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn slice(&mut self, len: usize) -> Result<&'e [u8], &'static str> {
        let (head, rest) = self.0.split_at_checked(len).ok_or("the entry is truncated")?;
        self.0 = rest;
        Ok(head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, &'static str> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, &'static str> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, &'static str> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, &'static str> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn end(self) -> Result<(), &'static str> {
        if self.0.is_empty() { Ok(()) } else { Err("the entry has trailing bytes") }
    }
}
