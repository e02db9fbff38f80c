//! A minimal RESP2 client, to inspect a server independently of the client under test.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

/// Maximum wait for a reply: a paused server does not reply.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A simple or bulk string.
    Text(Vec<u8>),
    /// An error.
    Error(String),
    /// An integer.
    Integer(i64),
    /// An array.
    Array(Vec<Reply>),
    /// No value.
    Nil,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct RespClient(BufReader<TcpStream>);

impl RespClient {
    /// Connects, and authenticates if a user and password are given.
    pub(crate) fn open(port: u16, login: Option<(&str, &str)>) -> io::Result<RespClient> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
        let mut client = RespClient(BufReader::new(stream));
        if let Some((user, password)) = login {
            match client.call(&["AUTH", user, password])? {
                Reply::Text(_) => {}
                reply => return Err(io::Error::other(format!("AUTH: {reply:?}"))),
            }
        }
        Ok(client)
    }

    /// Sends a command and reads its reply.
    pub(crate) fn call<W: AsRef<[u8]>>(&mut self, words: &[W]) -> io::Result<Reply> {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words.iter().map(AsRef::as_ref) {
            bytes.extend(format!("${}\r\n", word.len()).bytes());
            bytes.extend(word);
            bytes.extend(b"\r\n");
        }
        self.0.get_mut().write_all(&bytes)?;
        self.read()
    }

    fn read(&mut self) -> io::Result<Reply> {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line)?;
        let (Some((kind, rest)), true) = (line.split_first(), line.ends_with(b"\r\n")) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let text = String::from_utf8_lossy(&rest[..rest.len() - 2]).into_owned();
        let number = || text.parse::<i64>().map_err(io::Error::other);
        Ok(match kind {
            b'+' => Reply::Text(text.into_bytes()),
            b'-' => Reply::Error(text),
            b':' => Reply::Integer(number()?),
            b'$' => match usize::try_from(number()?) {
                Ok(length) => {
                    let mut bytes = vec![0; length + 2];
                    self.0.read_exact(&mut bytes)?;
                    bytes.truncate(length);
                    Reply::Text(bytes)
                }
                Err(_) => Reply::Nil,
            },
            b'*' => match number()? {
                -1 => Reply::Nil,
                length => Reply::Array((0..length).map(|_| self.read()).collect::<io::Result<_>>()?),
            },
            kind => return Err(io::Error::other(format!("unknown reply type {kind:#x}"))),
        })
    }
}
