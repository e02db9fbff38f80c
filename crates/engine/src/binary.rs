//! Reads and writes little-endian values of the binary formats of this crate.

/// Why bytes cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at byte {position}")]
pub(crate) struct DecodeError {
    pub(crate) position: usize,
    pub(crate) reason: &'static str,
}

/// The unread rest of a byte string.
#[derive(Clone, Debug)]
pub(crate) struct ByteReader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> ByteReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> ByteReader<'a> {
        ByteReader { bytes, position: 0 }
    }

    pub(crate) fn malformed(&self, reason: &'static str) -> DecodeError {
        DecodeError { position: self.position, reason }
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let rest = &self.bytes[self.position..];
        let taken = rest.get(..len).ok_or_else(|| self.malformed("truncated"))?;
        self.position += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn f64(&mut self) -> Result<f64, DecodeError> {
        Ok(f64::from_le_bytes(self.array()?))
    }

    /// Reads a byte string that follows its 32-bit length.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.u32()? as usize;
        self.take(len)
    }

    /// Like [`ByteReader::bytes`], for UTF-8.
    pub(crate) fn text(&mut self) -> Result<String, DecodeError> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| self.malformed("not UTF-8"))
    }

    /// Fails if any bytes are left.
    pub(crate) fn end(self) -> Result<(), DecodeError> {
        if self.position == self.bytes.len() { Ok(()) } else { Err(self.malformed("unexpected bytes")) }
    }
}

/// Appends the 32-bit length of a byte string and the byte string.
pub(crate) fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).expect("byte strings are far shorter than 4 GiB");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Bytes as text for a message, truncated after 64 characters.
pub(crate) fn printable(bytes: &[u8]) -> String {
    const CHARACTERS_MAX: usize = 64;
    let text = String::from_utf8_lossy(bytes);
    let mut characters = text.chars();
    let mut printed: String = characters.by_ref().take(CHARACTERS_MAX).flat_map(char::escape_debug).collect();
    if characters.next().is_some() {
        printed.push_str("...");
    }
    printed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_truncated_text_is_printed_with_an_ellipsis() {
        let text = "é".repeat(64);
        assert_eq!(printable(text.as_bytes()), text);
        assert_eq!(printable((text.clone() + "é").as_bytes()), text + "...");
        assert_eq!(printable(b"a\n\xff"), "a\\n\u{fffd}");
    }
}
