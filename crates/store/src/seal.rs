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

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of CRC-32/ISO-HDLC, the one zlib and Ethernet use.
    #[test]
    fn is_the_crc_it_says() {
        assert_eq!(checksum(b"1234", b"56789"), 0xcbf4_3926);
    }
}
