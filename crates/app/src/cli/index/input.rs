//! Opens files and standard input: decompressed, without a byte order mark, with a count of the bytes read.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Cursor, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use anyhow::{Context as _, bail};
use flate2::read::MultiGzDecoder;

/// The format of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Comma-separated (or --delimiter) values with a header
    Csv,
    /// One JSON object per line
    Jsonl,
}

/// An opened input.
pub(crate) struct Input {
    /// The name in messages.
    pub(crate) name: Arc<str>,
    /// The decompressed bytes.
    pub(crate) reader: Box<dyn BufRead + Send>,
    /// Bytes read before decompression.
    pub(crate) bytes_read: Arc<AtomicU64>,
    pub(crate) format: Format,
    /// Whether the name ends in .tsv.
    pub(crate) is_tsv: bool,
}

impl Input {
    /// Opens `path`; `-` is standard input. The format is `given`, or follows from the file's name, or for standard
    /// input from the first byte.
    pub(crate) fn open(path: &str, given: Option<Format>) -> anyhow::Result<Input> {
        let raw: Box<dyn Read + Send> = match path {
            "-" => Box::new(io::stdin()),
            _ => {
                let file = File::open(path).with_context(|| path.to_owned())?;
                if file.metadata().with_context(|| path.to_owned())?.is_dir() {
                    bail!("{path} is a directory: give the files in it");
                }
                Box::new(file)
            }
        };
        Input::new(path, raw, given)
    }

    /// As [`Input::open`], with `raw` as the content of `path`.
    pub(crate) fn new(path: &str, raw: Box<dyn Read + Send>, given: Option<Format>) -> anyhow::Result<Input> {
        let bytes_read = Arc::new(AtomicU64::new(0));
        let counting =
            BufReader::with_capacity(128 << 10, CountingReader { inner: raw, bytes: bytes_read.clone() });
        let (is_gzip, plain_name) = match path.strip_suffix(".gz") {
            Some(name) => (true, name),
            None => (false, path),
        };
        let (head, rest) = peek(counting, 4).with_context(|| format!("reading {path}"))?;
        let is_gzip = is_gzip || head.starts_with(&[0x1f, 0x8b]);
        let whole = Cursor::new(head).chain(rest);
        let plain: Box<dyn Read + Send> =
            if is_gzip { Box::new(MultiGzDecoder::new(whole)) } else { Box::new(whole) };
        let (mut head, rest) = peek(plain, 4).with_context(|| format!("reading {path}"))?;
        if head.starts_with(&[0xff, 0xfe]) || head.starts_with(&[0xfe, 0xff]) {
            bail!("{path} is UTF-16: convert it first, for example with iconv -f UTF-16 -t UTF-8");
        }
        if head.starts_with(&[0xef, 0xbb, 0xbf]) {
            head.drain(..3);
        }
        let extension = Path::new(plain_name).extension().map(|extension| extension.to_ascii_lowercase());
        let extension = extension.as_ref().and_then(|extension| extension.to_str());
        let format = match (given, extension) {
            (Some(format), _) => format,
            (None, Some("csv" | "tsv")) => Format::Csv,
            (None, Some("jsonl" | "ndjson")) => Format::Jsonl,
            (None, _) if path == "-" => {
                if head.trim_ascii_start().starts_with(b"{") {
                    Format::Jsonl
                } else {
                    Format::Csv
                }
            }
            (None, _) => {
                bail!("{path}: the name does not tell whether it is CSV or JSONL; use --format")
            }
        };
        Ok(Input {
            name: path.into(),
            reader: Box::new(BufReader::with_capacity(128 << 10, Cursor::new(head).chain(rest))),
            bytes_read,
            format,
            is_tsv: extension == Some("tsv"),
        })
    }
}

/// The first bytes, up to `count`, and a reader of the rest.
fn peek<R: Read>(mut reader: R, count: u64) -> io::Result<(Vec<u8>, R)> {
    let mut head = Vec::new();
    reader.by_ref().take(count).read_to_end(&mut head)?;
    Ok((head, reader))
}

/// Counts the bytes read.
struct CountingReader<R> {
    inner: R,
    bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for CountingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes.fetch_add(read as u64, Relaxed);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use flate2::{Compression, write::GzEncoder};
    use tempfile::TempDir;

    use super::*;

    fn text(path: &Path) -> anyhow::Result<(String, Format, u64)> {
        let mut input = Input::open(path.to_str().unwrap(), None)?;
        let mut text = String::new();
        input.reader.read_to_string(&mut text)?;
        Ok((text, input.format, input.bytes_read.load(Relaxed)))
    }

    #[test]
    fn detects_gzip_by_content_and_joins_its_members() {
        let dir = TempDir::new().unwrap();
        let mut packed = Vec::new();
        for part in ["\u{feff}id,", "title\n"] {
            let mut encoder = GzEncoder::new(&mut packed, Compression::fast());
            encoder.write_all(part.as_bytes()).unwrap();
            encoder.finish().unwrap();
        }
        for name in ["a.csv.gz", "a.csv"] {
            let path = dir.path().join(name);
            fs::write(&path, &packed).unwrap();
            assert_eq!(
                text(&path).unwrap(),
                ("id,title\n".to_owned(), Format::Csv, packed.len() as u64),
                "{name}"
            );
        }
        let path = dir.path().join("plain.csv.gz");
        fs::write(&path, "id,title\n").unwrap();
        assert!(text(&path).is_err(), "a file named .gz must be gzip");
    }

    #[test]
    fn explains_why_an_input_cannot_be_read() {
        let dir = TempDir::new().unwrap();
        let error = |name: &str, content: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, content).unwrap();
            text(&path).unwrap_err().to_string()
        };
        assert!(error("a.csv", b"\xff\xfei\0d\0").contains("UTF-16"));
        assert!(error("a.txt", b"id").contains("--format"));
        assert!(text(dir.path()).unwrap_err().to_string().contains("directory"));
        assert!(format!("{:#}", text(&dir.path().join("none.csv")).unwrap_err()).contains("none.csv"));
    }

    #[test]
    fn reads_empty_and_tiny_inputs_completely() {
        let dir = TempDir::new().unwrap();
        for content in ["", "a", "abc", "abcd", "abcde"] {
            let path = dir.path().join("a.jsonl");
            fs::write(&path, content).unwrap();
            assert_eq!(text(&path).unwrap(), (content.to_owned(), Format::Jsonl, content.len() as u64));
        }
    }
}
