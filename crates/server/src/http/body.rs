//! Request bodies: bounded, unzipped, and not waited for endlessly.

use std::{
    collections::VecDeque,
    io::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request},
    http::{HeaderMap, StatusCode, header},
};
use flate2::write::MultiGzDecoder;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

use super::{
    AppState, Problem,
    json::object::ObjectOnly,
    minimum_rate::{BYTES_PER_SECOND_MIN, MinimumRate},
};

/// Bytes of a JSON body.
pub(super) const JSON_BYTES_MAX: usize = 2 << 20;

/// Bytes of a body up to which room for it is made as it comes; beyond, at once for all of it.
const GROWING_BYTES: usize = 64 << 10;

/// A body read piece by piece.
pub(super) struct BodyReader {
    body: Body,
    decoder: Option<Box<MultiGzDecoder<Vec<u8>>>>,
    compressed: VecDeque<Bytes>,
    bytes_max: usize,
    /// Its length, if that was told, otherwise the most it may have.
    capacity: usize,
    received: usize,
    decompressed: usize,
    rate: MinimumRate,
    ended: bool,
}

impl BodyReader {
    /// Reads `body`, which may have `bytes_max` bytes as sent, and as many unzipped. It may stand still for `stall`,
    /// and fall behind 4 KiB a second by as much.
    pub(super) fn new(
        headers: &HeaderMap,
        body: Body,
        bytes_max: usize,
        stall: Duration,
    ) -> Result<BodyReader, Problem> {
        let length =
            headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > bytes_max as u64) {
            return Err(too_large(bytes_max));
        }
        let decoder = match headers
            .get(header::CONTENT_ENCODING)
            .map(|encoding| encoding.as_bytes().to_ascii_lowercase())
        {
            None => false,
            Some(encoding) if encoding == b"identity" => false,
            Some(encoding) if encoding == b"gzip" => true,
            Some(encoding) => {
                let detail = format!(
                    "Content-Encoding {:?} is not read: send gzip, or none",
                    String::from_utf8_lossy(&encoding)
                );
                let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
                return Err(Problem::new(status, "content-encoding", detail).at("Content-Encoding"));
            }
        };
        Ok(BodyReader {
            body,
            decoder: decoder.then(|| Box::new(MultiGzDecoder::new(Vec::new()))),
            compressed: VecDeque::new(),
            bytes_max,
            capacity: length.filter(|_| !decoder).map_or(bytes_max, |length| length as usize),
            received: 0,
            decompressed: 0,
            rate: MinimumRate::new(stall),
            ended: false,
        })
    }

    /// The next piece, as it came or some tens of kilobytes unzipped; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            if self.decoder.is_none() {
                return self.receive().await;
            }
            let chunk = match self.compressed.pop_front() {
                Some(chunk) => self.decompress(chunk)?,
                None => match self.receive().await? {
                    Some(chunk) => {
                        self.compressed.push_back(chunk);
                        continue;
                    }
                    None if self.ended => return Ok(None),
                    None => {
                        self.ended = true;
                        self.end()?
                    }
                },
            };
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
        }
    }

    /// All of it.
    pub(super) async fn all(mut self) -> Result<Vec<u8>, Problem> {
        let mut whole = Vec::new();
        while let Some(chunk) = self.next().await? {
            // A vector that doubles again and again leaves as much behind as it holds.
            if whole.len() + chunk.len() > whole.capacity().max(GROWING_BYTES) {
                whole.reserve_exact(self.capacity.max(whole.len() + chunk.len()) - whole.len());
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole)
    }

    /// Waits for what comes next as if nothing had been waited for yet.
    pub(super) fn reset_timeout(&mut self) {
        self.rate.reset();
    }

    /// The next piece as it was sent.
    async fn receive(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            let began = Instant::now();
            let frame = match tokio::time::timeout(self.rate.remaining(), self.body.frame()).await {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => {
                    return Err(Problem::bad_request("body", format!("the body broke off: {error}")));
                }
                Err(_) => {
                    let detail = format!(
                        "the body stood still for {} ms, or fell behind {BYTES_PER_SECOND_MIN} bytes a second by as much",
                        self.rate.stall_timeout().as_millis()
                    );
                    return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body-timeout", detail));
                }
            };
            self.rate.record(began.elapsed(), frame.data_ref().map_or(0, Bytes::len));
            let Ok(chunk) = frame.into_data() else { continue };
            self.received += chunk.len();
            if self.received > self.bytes_max {
                return Err(too_large(self.bytes_max));
            }
            return Ok(Some(chunk));
        }
    }

    fn decompress(&mut self, mut chunk: Bytes) -> Result<Bytes, Problem> {
        let decoder = self.decoder.as_mut().expect("called where there is a decoder");
        // `write` fills the decoder's buffer once, and takes what it needs for that; `write_all` would unzip a bomb
        // of any size before its bytes are counted.
        let taken = decoder.write(&chunk).map_err(|error| corrupt(&error))?;
        if taken == 0 {
            return Err(corrupt(&std::io::ErrorKind::WriteZero.into()));
        }
        drop(chunk.split_to(taken));
        if !chunk.is_empty() {
            self.compressed.push_front(chunk);
        }
        let plain = std::mem::take(decoder.get_mut());
        self.count(plain)
    }

    fn end(&mut self) -> Result<Bytes, Problem> {
        let decoder = self.decoder.as_mut().expect("called where there is a decoder");
        decoder.try_finish().map_err(|error| corrupt(&error))?;
        let plain = std::mem::take(decoder.get_mut());
        self.count(plain)
    }

    fn count(&mut self, plain: Vec<u8>) -> Result<Bytes, Problem> {
        self.decompressed += plain.len();
        if self.decompressed > self.bytes_max {
            return Err(too_large(self.bytes_max));
        }
        Ok(Bytes::from(plain))
    }
}

fn too_large(bytes_max: usize) -> Problem {
    let detail = format!("the body may have {bytes_max} bytes here, unzipped");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-size", detail)
}

fn corrupt(error: &std::io::Error) -> Problem {
    Problem::bad_request("body-gzip", format!("the body is not gzip, or is cut short: {error}"))
}

/// What a body is, by its `Content-Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MediaType {
    /// `application/json`.
    Json,
    /// `application/x-ndjson`: one value a line.
    Ndjson,
}

impl MediaType {
    /// Reads the header; a charset other than UTF-8 is refused.
    pub(super) fn of(headers: &HeaderMap) -> Result<MediaType, Problem> {
        let text =
            headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let mut parts = text.split(';').map(|part| part.trim().to_ascii_lowercase());
        let kind = match parts.next().as_deref() {
            Some("application/json") => Some(MediaType::Json),
            Some("application/x-ndjson" | "application/ndjson" | "application/jsonl") => {
                Some(MediaType::Ndjson)
            }
            _ => None,
        };
        let is_utf8 = parts.all(|part| {
            part.strip_prefix("charset=")
                .is_none_or(|charset| matches!(charset.trim_matches('"'), "utf-8" | "utf8"))
        });
        kind.filter(|_| is_utf8).ok_or_else(|| unsupported(text, "application/json or application/x-ndjson"))
    }
}

fn unsupported(found: &str, allowed: &str) -> Problem {
    let detail = format!("Content-Type must be {allowed} in UTF-8, found {found:?}");
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-type", detail).at("Content-Type")
}

/// An object as the body, read strictly.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Arc<AppState>> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &Arc<AppState>) -> Result<Json<T>, Problem> {
        let (parts, body) = request.into_parts();
        only_json(&parts.headers)?;
        let body =
            BodyReader::new(&parts.headers, body, JSON_BYTES_MAX, state.settings.body_timeout)?.all().await?;
        parse(&body).map(|ObjectOnly(value)| Json(value))
    }
}

/// An object as the body, or what stands for an empty one.
pub(super) async fn json_or_default<T: DeserializeOwned + Default>(
    state: &AppState,
    headers: &HeaderMap,
    body: Body,
) -> Result<T, Problem> {
    let body = BodyReader::new(headers, body, JSON_BYTES_MAX, state.settings.body_timeout)?.all().await?;
    if body.is_empty() {
        return Ok(T::default());
    }
    only_json(headers)?;
    parse(&body).map(|ObjectOnly(value)| value)
}

fn only_json(headers: &HeaderMap) -> Result<(), Problem> {
    if MediaType::of(headers)? == MediaType::Json {
        return Ok(());
    }
    let found = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    Err(unsupported(found, "application/json"))
}

/// Parses JSON: 400 with line and column if it is none, 422 with the member if it is not what was expected.
pub(super) fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(json).map_err(|error| {
        let at = format!("line {}, column {}", error.line(), error.column());
        if error.is_data() {
            // Which member it is in is looked for only now: what is right is not slowed down.
            let again = &mut serde_json::Deserializer::from_slice(json);
            let path =
                serde_path_to_error::deserialize::<_, T>(again).err().map(|error| error.path().to_string());
            let detail = match path.as_deref() {
                None | Some(".") => error.to_string(),
                Some(member) => format!("{member}: {error}"),
            };
            Problem::invalid("json-structure", detail).at(at)
        } else {
            Problem::bad_request("json", format!("the body is not JSON: {error}")).at(at)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::ndjson::ChannelBody;
    use axum::http::HeaderValue;
    use flate2::{Compression, write::GzEncoder};
    use tokio_util::sync::CancellationToken;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    async fn unzip(zipped: Vec<u8>, bytes_max: usize) -> Result<Vec<u8>, Problem> {
        let headers = HeaderMap::from_iter([(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"))]);
        BodyReader::new(&headers, Body::from(zipped), bytes_max, Duration::from_secs(60))?.all().await
    }

    #[tokio::test]
    async fn gzip_is_read_whole_in_members_or_not_at_all() {
        let plain = b"a sentence, and another one ".repeat(1000);
        let zipped = gzip(&plain);
        assert_eq!(unzip(zipped.clone(), plain.len()).await.unwrap(), plain);
        assert_eq!(
            unzip([zipped.clone(), zipped.clone()].concat(), 2 * plain.len()).await.unwrap(),
            plain.repeat(2)
        );
        assert_eq!(unzip(zipped.clone(), plain.len() - 1).await.unwrap_err().status(), 413);
        for cut in [1, 10, zipped.len() / 2, zipped.len() - 1] {
            assert_eq!(
                unzip(zipped[..cut].to_vec(), plain.len()).await.unwrap_err().status(),
                400,
                "cut at {cut}"
            );
        }
        let mut flipped = zipped.clone();
        *flipped.last_mut().unwrap() ^= 1;
        assert_eq!(unzip(flipped, plain.len()).await.unwrap_err().status(), 400, "wrong length at the end");
        assert_eq!(unzip(b"plain text".to_vec(), 100).await.unwrap_err().status(), 400);
    }

    #[tokio::test]
    async fn a_gzip_bomb_is_stopped_in_small_pieces() {
        let bomb = gzip(&vec![0; 32 << 20]);
        assert!(bomb.len() < 64 << 10);
        let headers = HeaderMap::from_iter([(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"))]);
        let mut reader =
            BodyReader::new(&headers, Body::from(bomb), 4 << 20, Duration::from_secs(60)).ok().unwrap();
        let refused = loop {
            match reader.next().await {
                Ok(chunk) => assert!(chunk.expect("it does not end").len() <= 64 << 10),
                Err(problem) => break problem,
            }
        };
        assert_eq!(refused.status(), 413);
    }

    #[tokio::test]
    async fn a_body_that_stands_still_is_given_up() {
        let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
        let body = Body::new(ChannelBody::new(receiver, CancellationToken::new().drop_guard()));
        let reader = BodyReader::new(&HeaderMap::new(), body, 100, Duration::from_millis(20)).ok().unwrap();
        sender.send(Bytes::from_static(b"{")).await.unwrap();
        assert_eq!(reader.all().await.unwrap_err().status(), 408);
    }

    #[test]
    fn media_types_are_told_apart() {
        let of = |text: &'static str| {
            MediaType::of(&HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(text))]))
                .ok()
        };
        assert_eq!(of("application/json"), Some(MediaType::Json));
        assert_eq!(of("Application/JSON; charset=UTF-8"), Some(MediaType::Json));
        assert_eq!(of("application/x-ndjson"), Some(MediaType::Ndjson));
        assert_eq!(of("application/json; charset=latin1"), None);
        assert_eq!(of("application/x-www-form-urlencoded"), None);
        assert_eq!(of("text/plain"), None);
    }

    #[test]
    fn bad_json_is_pointed_at() {
        let problem = |json: &str| parse::<Vec<f64>>(json.as_bytes()).unwrap_err();
        for bad_request in ["[1,", "[1e999]", "[NaN]", "", "[1] 2", "\u{feff}[1]"] {
            assert_eq!(problem(bad_request).status(), 400, "{bad_request:?}");
        }
        assert_eq!(problem("[\"a\"]").status(), 422);
        let deep = "[".repeat(200);
        let problem = parse::<serde_json::Value>(deep.as_bytes()).unwrap_err();
        assert_eq!(problem.status(), 400, "nesting is bounded");
        let problem = parse::<String>(br#""\ud800 alone""#).unwrap_err();
        assert_eq!(problem.status(), 400);
        assert!(serde_json::to_string(&problem).unwrap().contains("line 1, column"));
    }
}
