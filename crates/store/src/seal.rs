//! The checksum every stored entry ends with.
//!
//! CRC-32 (IEEE 802.3) over the entry's place (its key) and its bytes, so that an entry which was
//! damaged, or which turned up under another key, does not pass.

const CHECKSUM_BYTES: usize = 4;

pub(crate) fn checksum(place: &[u8], bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(place);
    hasher.update(bytes);
    hasher.finalize()
}

/// Appends the checksum.
pub(crate) fn seal(place: &[u8], entry: &mut Vec<u8>) {
    let sum = checksum(place, entry);
    entry.extend_from_slice(&sum.to_le_bytes());
}

/// The entry without its checksum, or why it cannot be trusted.
pub(crate) fn unseal<'e>(place: &[u8], entry: &'e [u8]) -> Result<&'e [u8], &'static str> {
    let (bytes, sum) =
        entry.split_last_chunk::<CHECKSUM_BYTES>().ok_or("entry too short for its checksum")?;
    if checksum(place, bytes) != u32::from_le_bytes(*sum) {
        return Err("checksum does not match");
    }
    Ok(bytes)
}

/// Takes fixed-size values off the front of an entry.
pub(crate) struct Bytes<'e>(pub(crate) &'e [u8]);

impl<'e> Bytes<'e> {
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or("entry ends too early")?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn slice(&mut self, len: usize) -> Result<&'e [u8], &'static str> {
        let (head, rest) = self.0.split_at_checked(len).ok_or("entry ends too early")?;
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
        if self.0.is_empty() { Ok(()) } else { Err("entry has bytes left over") }
    }
}

/// Optional Unix milliseconds: a flag byte, then the value when the flag is 1.
pub(crate) fn put_expiry(entry: &mut Vec<u8>, expires_at_ms: Option<u64>) {
    entry.push(u8::from(expires_at_ms.is_some()));
    if let Some(at) = expires_at_ms {
        entry.extend_from_slice(&at.to_le_bytes());
    }
}

pub(crate) fn take_expiry(bytes: &mut Bytes<'_>) -> Result<Option<u64>, &'static str> {
    match bytes.u8()? {
        0 => Ok(None),
        1 => bytes.u64().map(Some),
        _ => Err("unknown flag before the expiry"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of CRC-32/ISO-HDLC, the one zlib and Ethernet use.
    #[test]
    fn is_the_crc_it_says() {
        assert_eq!(checksum(b"1234", b"56789"), 0xcbf4_3926);
    }
}
