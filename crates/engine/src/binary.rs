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
        let taken = rest.get(..len).ok_or_else(|| self.malformed("cut short"))?;
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
        if self.position == self.bytes.len() { Ok(()) } else { Err(self.malformed("bytes left over")) }
    }
}

/// Appends the 32-bit length of a byte string and the byte string.
pub(crate) fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).expect("byte strings are far shorter than 4 GiB");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Bytes as text for a message, shortened if they are long.
pub(crate) fn printable(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 64;
    let mut text: String =
        String::from_utf8_lossy(bytes).chars().take(SHOWN_MAX).flat_map(char::escape_debug).collect();
    if bytes.len() > SHOWN_MAX {
        text.push_str("...");
    }
    text
}
