//! Conditional writes of single documents with the script `write.lua`.

use redis::{Cmd, Value};
use sha1::{Digest, Sha1};

use super::{Error, Expected, Field, error, reply};
use crate::Seq;

/// The script's source.
const SOURCE: &str = include_str!("write.lua");

/// The script and its SHA-1.
#[derive(Debug)]
pub(super) struct Script {
    sha1: String,
}

/// The result of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteReply {
    /// The write was applied; `existed`: whether the key held a document before.
    Written { existed: bool },
    /// The condition failed; `found`: the content hash of the existing document.
    Conflict { found: Option<Seq> },
}

impl Script {
    pub(super) fn new() -> Script {
        let digest = Sha1::digest(SOURCE.as_bytes());
        Script { sha1: digest.iter().map(|byte| format!("{byte:02x}")).collect() }
    }

    /// The command that loads the script.
    pub(super) fn load(&self) -> Cmd {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(SOURCE);
        command
    }

    /// Replaces the document under a key.
    pub(super) fn put<'f>(
        &self,
        key: &[u8],
        fields: impl ExactSizeIterator<Item = (&'f [u8], &'f [u8])>,
        expires_at_ms: Option<u64>,
        expected: Expected,
    ) -> Cmd {
        let mut command = self.call(key, "put", expected);
        match expires_at_ms {
            Some(expiry) => command.arg(expiry),
            None => command.arg(""),
        };
        for (name, value) in fields {
            command.arg(name).arg(value);
        }
        command
    }

    /// Sets some fields of an existing document.
    pub(super) fn set(&self, key: &[u8], fields: &[Field], expected: Expected) -> Cmd {
        let mut command = self.call(key, "set", expected);
        command.arg("");
        for field in fields {
            command.arg(&*field.name).arg(&*field.value);
        }
        command
    }

    /// Deletes a document.
    pub(super) fn delete(&self, key: &[u8], expected: Expected) -> Cmd {
        self.call(key, "delete", expected)
    }

    fn call(&self, key: &[u8], verb: &str, expected: Expected) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.sha1).arg(1).arg(key).arg(verb);
        match expected {
            Expected::Any => command.arg("*"),
            Expected::Absent => command.arg(""),
            Expected::Seq(seq) => command.arg(seq),
        };
        command
    }
}

/// Parses the script's reply.
pub(super) fn parse_reply(value: Value) -> Result<WriteReply, Error> {
    const WHAT: &str = "the result of a write";
    let items = reply::items(value, WHAT)?;
    let Ok([is_applied, detail]) = <[Value; 2]>::try_from(items) else { return Err(error::reply(WHAT)) };
    if reply::integer(is_applied, WHAT)? == 1 {
        return Ok(WriteReply::Written { existed: reply::integer(detail, WHAT)? == 1 });
    }
    let found = reply::text(detail, WHAT)?;
    if found.is_empty() {
        return Ok(WriteReply::Conflict { found: None });
    }
    let found = found.parse().map_err(|_| error::reply(WHAT))?;
    Ok(WriteReply::Conflict { found: Some(found) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_one_command_per_put_with_condition_and_expiry() {
        let script = Script::new();
        assert_eq!(script.sha1.len(), 40);
        let fields = [(&b"a"[..], &b"1"[..]), (b"v", b"\x00\xff")];
        let packed = |expires, expected| {
            String::from_utf8_lossy(
                &script.put(b"k", fields.into_iter(), expires, expected).get_packed_command(),
            )
            .replace(&script.sha1, "SHA")
            .replace("\r\n", " ")
        };
        assert_eq!(
            packed(None, Expected::Any),
            "*11 $7 EVALSHA $40 SHA $1 1 $1 k $3 put $1 * $0  $1 a $1 1 $1 v $2 \u{0}\u{fffd} "
        );
        assert!(packed(Some(1234), Expected::Seq(56)).contains("$3 put $2 56 $4 1234 $1 a"));
        assert!(packed(None, Expected::Absent).contains("$3 put $0  $0  $1 a"));
    }

    #[test]
    fn parses_the_replies_of_the_script() {
        assert_eq!(
            parse_reply(reply::recorded("*2\r\n:1\r\n:0\r\n")).unwrap(),
            WriteReply::Written { existed: false }
        );
        assert_eq!(
            parse_reply(reply::recorded("*2\r\n:1\r\n:1\r\n")).unwrap(),
            WriteReply::Written { existed: true }
        );
        assert_eq!(
            parse_reply(reply::recorded("*2\r\n:0\r\n$0\r\n\r\n")).unwrap(),
            WriteReply::Conflict { found: None }
        );
        let found = parse_reply(reply::recorded("*2\r\n:0\r\n$16\r\n4503599627370495\r\n")).unwrap();
        assert_eq!(found, WriteReply::Conflict { found: Some((1 << 52) - 1) });
        let wrong_type = parse_reply(reply::recorded("-WRONGTYPE Operation against a key\r\n")).unwrap_err();
        assert_eq!(wrong_type.code, "key-taken");
    }
}
