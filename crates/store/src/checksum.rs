//! The checksum at the end of every stored entry.
//!
//! It is the CRC-32 (IEEE 802.3) of the entry's key and its bytes, so that it detects both a damaged
//! entry and an entry under another key.

const CHECKSUM_BYTES: usize = 4;

pub(crate) fn checksum(key: &[u8], bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(bytes);
    hasher.finalize()
}

/// Appends the checksum of `key` and `entry`.
pub(crate) fn append_checksum(key: &[u8], entry: &mut Vec<u8>) {
    let sum = checksum(key, entry);
    entry.extend_from_slice(&sum.to_le_bytes());
}

/// Verifies the checksum and returns the entry without it.
pub(crate) fn strip_checksum<'e>(key: &[u8], entry: &'e [u8]) -> Result<&'e [u8], &'static str> {
    let (bytes, sum) =
        entry.split_last_chunk::<CHECKSUM_BYTES>().ok_or("the entry is too short for a checksum")?;
    if checksum(key, bytes) != u32::from_le_bytes(*sum) {
        return Err("the checksum does not match");
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of CRC-32/ISO-HDLC, which zlib and Ethernet use.
    #[test]
    fn is_crc_32_iso_hdlc() {
        assert_eq!(checksum(b"1234", b"56789"), 0xcbf4_3926);
    }
}
