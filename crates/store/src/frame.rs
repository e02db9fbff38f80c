//! Byte streams in frames with checksums. A reader returns only verified bytes.
//!
//! A frame consists of its length (32 bits), a CRC-32 over its number in the file and its bytes,
//! and the bytes. A frame of length 0 ends a stream. Numbers are little-endian.

use std::io::{self, ErrorKind, Read, Write};

/// Maximum number of bytes per frame.
const FRAME_BYTES_MAX: usize = 1 << 20;
const HEADER_BYTES: usize = 8;

/// Writes a sequence of streams.
#[derive(Debug)]
pub struct FrameWriter<W> {
    output: W,
    frame: Vec<u8>,
    number: u64,
}

impl<W: Write> FrameWriter<W> {
    /// Creates a writer that writes its frames to `output`.
    pub fn new(output: W) -> FrameWriter<W> {
        FrameWriter { output, frame: Vec::with_capacity(FRAME_BYTES_MAX), number: 0 }
    }

    /// Ends the current stream. Later writes belong to the next one.
    pub fn end_stream(&mut self) -> io::Result<()> {
        self.flush()?;
        self.write_frame()
    }

    /// Returns the underlying writer.
    ///
    /// # Panics
    ///
    /// If the last stream was not ended, because its last bytes would be lost.
    pub fn into_inner(self) -> W {
        assert!(self.frame.is_empty(), "the last stream was not ended");
        self.output
    }

    fn write_frame(&mut self) -> io::Result<()> {
        let len = u32::try_from(self.frame.len()).expect("a frame has at most FRAME_BYTES_MAX bytes");
        self.output.write_all(&len.to_le_bytes())?;
        self.output.write_all(&checksum(self.number, &self.frame).to_le_bytes())?;
        self.output.write_all(&self.frame)?;
        self.number += 1;
        self.frame.clear();
        Ok(())
    }
}

impl<W: Write> Write for FrameWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.frame.len() == FRAME_BYTES_MAX {
            self.write_frame()?;
        }
        let taken = bytes.len().min(FRAME_BYTES_MAX - self.frame.len());
        self.frame.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.frame.is_empty() { Ok(()) } else { self.write_frame() }
    }
}

/// Reads a sequence of streams. At the end of each stream `read` returns 0.
#[derive(Debug)]
pub struct FrameReader<R> {
    input: R,
    frame: Vec<u8>,
    position: usize,
    number: u64,
    ended: bool,
    /// Offset of the next frame in the file.
    offset: u64,
}

impl<R: Read> FrameReader<R> {
    /// Creates a reader of the frames in `input`. The first frame is at `offset` in the file.
    pub fn new(input: R, offset: u64) -> FrameReader<R> {
        FrameReader { input, frame: Vec::new(), position: 0, number: 0, ended: false, offset }
    }

    /// Advances to the next stream. Fails if the current one has not been read to its end.
    pub fn next_stream(&mut self) -> io::Result<()> {
        if self.read(&mut [0])? > 0 {
            return Err(malformed("a stream is longer than expected"));
        }
        self.ended = false;
        Ok(())
    }

    /// Fails if any bytes follow the last stream.
    pub fn end(mut self) -> io::Result<()> {
        self.next_stream()?;
        match self.input.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(malformed("unexpected bytes after the end")),
        }
    }

    fn read_frame(&mut self) -> io::Result<()> {
        let at = self.offset;
        let damaged = |reason: &str| malformed(&format!("the frame at byte {at} {reason}"));
        let truncated = |error: io::Error| match error.kind() {
            ErrorKind::UnexpectedEof => damaged("is truncated"),
            _ => error,
        };
        let mut header = [0; HEADER_BYTES];
        self.input.read_exact(&mut header).map_err(truncated)?;
        let (len, sum) = header.split_at(4);
        let word =
            |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("half of the header has four bytes"));
        let len = word(len) as usize;
        if len > FRAME_BYTES_MAX {
            return Err(damaged("is too long"));
        }
        self.frame.resize(len, 0);
        self.position = 0;
        self.input.read_exact(&mut self.frame).map_err(truncated)?;
        if checksum(self.number, &self.frame) != word(sum) {
            return Err(damaged("does not match its checksum"));
        }
        self.number += 1;
        self.offset += (HEADER_BYTES + len) as u64;
        self.ended = len == 0;
        Ok(())
    }
}

impl<R: Read> Read for FrameReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        if self.position == self.frame.len() && !self.ended {
            self.read_frame()?;
        }
        let rest = &self.frame[self.position..];
        let len = rest.len().min(out.len());
        out[..len].copy_from_slice(&rest[..len]);
        self.position += len;
        Ok(len)
    }
}

fn checksum(number: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

fn malformed(reason: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, reason.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> (Vec<u8>, [Vec<u8>; 3]) {
        let long: Vec<u8> = (0..FRAME_BYTES_MAX as u32 * 2 + 7).map(|i| (i % 251) as u8).collect();
        let streams = [b"one".to_vec(), Vec::new(), long];
        let mut writer = FrameWriter::new(Vec::new());
        for stream in &streams {
            writer.write_all(stream).unwrap();
            writer.end_stream().unwrap();
        }
        (writer.into_inner(), streams)
    }

    fn read(bytes: &[u8]) -> io::Result<[Vec<u8>; 3]> {
        let mut reader = FrameReader::new(bytes, 0);
        let mut streams = [const { Vec::new() }; 3];
        for (at, stream) in streams.iter_mut().enumerate() {
            if at > 0 {
                reader.next_stream()?;
            }
            reader.read_to_end(stream)?;
        }
        reader.end()?;
        Ok(streams)
    }

    #[test]
    fn reads_what_was_written() {
        let (bytes, streams) = written();
        assert!(read(&bytes).unwrap() == streams);
    }

    #[test]
    fn detects_truncation_and_flipped_bits() {
        let (bytes, _) = written();
        for len in (0..64).chain(bytes.len() - 64..bytes.len()) {
            assert!(read(&bytes[..len]).is_err(), "truncated to {len} bytes");
        }
        for position in (0..64).chain((64..bytes.len()).step_by(40_009)) {
            let mut changed = bytes.clone();
            changed[position] ^= 1 << (position % 8);
            assert!(read(&changed).is_err(), "bit flipped in byte {position}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(read(&longer).is_err());
    }

    #[test]
    #[should_panic(expected = "the last stream was not ended")]
    fn rejects_an_unfinished_stream() {
        let mut writer = FrameWriter::new(Vec::new());
        writer.write_all(b"lost").unwrap();
        writer.into_inner();
    }

    #[test]
    fn detects_reordered_frames() {
        let mut writer = FrameWriter::new(Vec::new());
        for stream in [b"aaaa", b"bbbb"] {
            writer.write_all(stream).unwrap();
            writer.end_stream().unwrap();
        }
        let bytes = writer.into_inner();
        let (first, second) = bytes.split_at(bytes.len() / 2);
        let mut reader = FrameReader::new(io::Cursor::new([second, first].concat()), 0);
        assert!(reader.read_to_end(&mut Vec::new()).is_err());
    }
}
