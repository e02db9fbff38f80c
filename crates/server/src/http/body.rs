//! Request bodies: limited in size, decompressed, and received at a minimum rate.
//!
//! The size as sent is limited by [`Limited`]. The rest is not in tower-http: its limit layer answers without a problem
//! document and knows one limit per route, while documents have one per media type; its timeout has no minimum rate; and
//! its decompression reports a corrupt body like a broken connection.

use std::{
    io::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request},
    http::{HeaderMap, header},
};
use flate2::write::MultiGzDecoder;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::{AppState, Problem, error_code::ErrorCode, json::object::ObjectOnly, minimum_rate::MinimumRate};

/// Bytes of a JSON body.
pub(super) const JSON_BYTES_MAX: usize = 2 << 20;

/// Bytes per second at which a client may send a body.
const BYTES_PER_SECOND_MIN: u32 = 4096;

/// Up to this size the buffer of a body grows as it arrives; beyond, it is allocated for the whole body.
const GROWING_BYTES: usize = 64 << 10;

/// Reads a body chunk by chunk.
pub(super) struct BodyReader {
    body: Limited<Body>,
    decoder: Option<Box<MultiGzDecoder<Vec<u8>>>>,
    /// Received, but not decompressed yet.
    compressed: Bytes,
    decompressed: usize,
    /// Limit of the body, both as sent and decompressed.
    bytes_max: usize,
    /// Length of the body if known, otherwise its limit.
    capacity: usize,
    rate: MinimumRate,
    ended: bool,
}

impl BodyReader {
    /// Reads `body`, which may have `bytes_max` bytes as sent and as many decompressed. It may pause for `stall`, and
    /// fall behind 4 KiB per second by as much.
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
        let is_gzip = match headers
            .get(header::CONTENT_ENCODING)
            .map(|encoding| encoding.as_bytes().to_ascii_lowercase())
        {
            None => false,
            Some(encoding) if encoding == b"identity" => false,
            Some(encoding) if encoding == b"gzip" => true,
            Some(encoding) => {
                let detail = format!(
                    "Content-Encoding {:?} is not supported: send gzip, or none",
                    String::from_utf8_lossy(&encoding)
                );
                return Err(Problem::new(ErrorCode::ContentEncoding, detail).at("Content-Encoding"));
            }
        };
        Ok(BodyReader {
            body: Limited::new(body, bytes_max),
            decoder: is_gzip.then(|| Box::new(MultiGzDecoder::new(Vec::new()))),
            compressed: Bytes::new(),
            decompressed: 0,
            bytes_max,
            capacity: length.filter(|_| !is_gzip).map_or(bytes_max, |length| length as usize),
            rate: MinimumRate::new(stall, BYTES_PER_SECOND_MIN),
            ended: false,
        })
    }

    /// The next chunk: as received, or some tens of kilobytes decompressed. `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        if self.decoder.is_none() {
            return self.receive().await;
        }
        loop {
            let chunk = if !self.compressed.is_empty() {
                self.decompress()?
            } else if self.ended {
                return Ok(None);
            } else if let Some(chunk) = self.receive().await? {
                self.compressed = chunk;
                continue;
            } else {
                self.ended = true;
                self.finish_decompression()?
            };
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
        }
    }

    /// The whole body.
    pub(super) async fn read_to_end(mut self) -> Result<Vec<u8>, Problem> {
        let mut whole = Vec::new();
        while let Some(chunk) = self.next().await? {
            // Growing by doubling would leave as much freed memory behind as the buffer holds.
            if whole.len() + chunk.len() > whole.capacity().max(GROWING_BYTES) {
                whole.reserve_exact(self.capacity.max(whole.len() + chunk.len()) - whole.len());
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole)
    }

    /// Restarts the timeout.
    pub(super) fn reset_timeout(&mut self) {
        self.rate.reset();
    }

    /// The next chunk as it was sent.
    async fn receive(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            let began = Instant::now();
            let frame = match tokio::time::timeout(self.rate.remaining(), self.body.frame()).await {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) if error.is::<LengthLimitError>() => {
                    return Err(too_large(self.bytes_max));
                }
                Ok(Some(Err(error))) => {
                    return Err(Problem::new(
                        ErrorCode::Body,
                        format!("the connection failed before the body was complete: {error}"),
                    ));
                }
                Err(_) => {
                    let detail = format!(
                        "the body paused for {} ms, or stayed below {BYTES_PER_SECOND_MIN} bytes per second for as long",
                        self.rate.stall_timeout().as_millis()
                    );
                    return Err(Problem::new(ErrorCode::BodyTimeout, detail));
                }
            };
            self.rate.record(began.elapsed(), frame.data_ref().map_or(0, Bytes::len));
            if let Ok(chunk) = frame.into_data() {
                return Ok(Some(chunk));
            }
        }
    }

    fn decompress(&mut self) -> Result<Bytes, Problem> {
        let decoder = self.decoder.as_mut().expect("called for gzip only");
        // `write` fills the decoder's buffer once and reports how much input that took; `write_all` would decompress a
        // bomb of any size before its bytes are counted.
        let taken = decoder.write(&self.compressed).map_err(|error| corrupt(&error))?;
        if taken == 0 {
            return Err(corrupt(&std::io::ErrorKind::WriteZero.into()));
        }
        drop(self.compressed.split_to(taken));
        let decompressed = std::mem::take(decoder.get_mut());
        self.count(decompressed)
    }

    fn finish_decompression(&mut self) -> Result<Bytes, Problem> {
        let decoder = self.decoder.as_mut().expect("called for gzip only");
        decoder.try_finish().map_err(|error| corrupt(&error))?;
        let decompressed = std::mem::take(decoder.get_mut());
        self.count(decompressed)
    }

    fn count(&mut self, decompressed: Vec<u8>) -> Result<Bytes, Problem> {
        self.decompressed += decompressed.len();
        if self.decompressed > self.bytes_max {
            return Err(too_large(self.bytes_max));
        }
        Ok(Bytes::from(decompressed))
    }
}

fn too_large(bytes_max: usize) -> Problem {
    let detail = format!("the body is larger than {bytes_max} bytes, uncompressed");
    Problem::new(ErrorCode::BodySize, detail)
}

fn corrupt(error: &std::io::Error) -> Problem {
    Problem::new(ErrorCode::BodyGzip, format!("the body is not valid gzip, or is incomplete: {error}"))
}

/// The media type of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MediaType {
    /// `application/json`.
    Json,
    /// `application/x-ndjson`: one value per line.
    Ndjson,
}

impl MediaType {
    /// Reads `Content-Type`. Charsets other than UTF-8 are rejected.
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
    Problem::new(ErrorCode::ContentType, detail).at("Content-Type")
}

/// A body that is a JSON object.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Arc<AppState>> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &Arc<AppState>) -> Result<Json<T>, Problem> {
        let (parts, body) = request.into_parts();
        only_json(&parts.headers)?;
        let body = BodyReader::new(&parts.headers, body, JSON_BYTES_MAX, state.settings.body_timeout)?
            .read_to_end()
            .await?;
        parse(&body).map(|ObjectOnly(value)| Json(value))
    }
}

/// A body that is a JSON object; the default if it is empty.
pub(super) async fn json_or_default<T: DeserializeOwned + Default>(
    state: &AppState,
    headers: &HeaderMap,
    body: Body,
) -> Result<T, Problem> {
    let body =
        BodyReader::new(headers, body, JSON_BYTES_MAX, state.settings.body_timeout)?.read_to_end().await?;
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

/// Parses JSON. Invalid syntax is 400 with line and column; an unexpected structure is 422 with the member.
pub(super) fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(json).map_err(|error| {
        let at = format!("line {}, column {}", error.line(), error.column());
        if error.is_data() {
            // The path to the member is computed only on errors, since it slows parsing down.
            let deserializer = &mut serde_json::Deserializer::from_slice(json);
            let path = serde_path_to_error::deserialize::<_, T>(deserializer)
                .err()
                .map(|error| error.path().to_string());
            let detail = match path.as_deref() {
                None | Some(".") => error.to_string(),
                Some(member) => format!("{member}: {error}"),
            };
            Problem::new(ErrorCode::JsonStructure, detail).at(at)
        } else {
            Problem::new(ErrorCode::Json, format!("the body is not JSON: {error}")).at(at)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::ndjson::channel_body;
    use axum::http::HeaderValue;
    use flate2::{Compression, write::GzEncoder};
    use tokio_util::sync::CancellationToken;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    async fn decompress(compressed: Vec<u8>, bytes_max: usize) -> Result<Vec<u8>, Problem> {
        let headers = HeaderMap::from_iter([(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"))]);
        BodyReader::new(&headers, Body::from(compressed), bytes_max, Duration::from_secs(60))?
            .read_to_end()
            .await
    }

    #[tokio::test]
    async fn gzip_with_several_members_is_read_and_corrupt_gzip_rejected() {
        let plain = b"a sentence, and another one ".repeat(1000);
        let compressed = gzip(&plain);
        assert_eq!(decompress(compressed.clone(), plain.len()).await.unwrap(), plain);
        assert_eq!(
            decompress([compressed.clone(), compressed.clone()].concat(), 2 * plain.len()).await.unwrap(),
            plain.repeat(2)
        );
        assert_eq!(decompress(compressed.clone(), plain.len() - 1).await.unwrap_err().status(), 413);
        for cut in [1, 10, compressed.len() / 2, compressed.len() - 1] {
            assert_eq!(
                decompress(compressed[..cut].to_vec(), plain.len()).await.unwrap_err().status(),
                400,
                "cut at {cut}"
            );
        }
        let mut flipped = compressed.clone();
        *flipped.last_mut().unwrap() ^= 1;
        assert_eq!(
            decompress(flipped, plain.len()).await.unwrap_err().status(),
            400,
            "wrong length at the end"
        );
        assert_eq!(decompress(b"plain text".to_vec(), 100).await.unwrap_err().status(), 400);
    }

    #[tokio::test]
    async fn a_gzip_bomb_is_stopped_after_small_chunks() {
        let bomb = gzip(&vec![0; 32 << 20]);
        assert!(bomb.len() < 64 << 10);
        let headers = HeaderMap::from_iter([(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"))]);
        let mut reader =
            BodyReader::new(&headers, Body::from(bomb), 4 << 20, Duration::from_secs(60)).ok().unwrap();
        let problem = loop {
            match reader.next().await {
                Ok(chunk) => assert!(chunk.expect("the limit is reached first").len() <= 64 << 10),
                Err(problem) => break problem,
            }
        };
        assert_eq!(problem.status(), 413);
    }

    #[tokio::test]
    async fn a_body_that_pauses_too_long_is_rejected() {
        let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
        let body = channel_body(receiver, CancellationToken::new().drop_guard());
        let reader = BodyReader::new(&HeaderMap::new(), body, 100, Duration::from_millis(20)).ok().unwrap();
        sender.send(Bytes::from_static(b"{")).await.unwrap();
        assert_eq!(reader.read_to_end().await.unwrap_err().status(), 408);
    }

    #[test]
    fn recognizes_media_types() {
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
    fn json_errors_have_line_and_column() {
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
