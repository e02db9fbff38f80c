//! An open-loop load generator: the schedule of requests is independent of the responses, and a latency is
//! measured from the time its request was due. A stalled server is therefore charged for every request that
//! was due during the stall (no coordinated omission).
//!
//! One thread sends raw HTTP/1.1 over persistent connections and polls without sleeping shortly before the
//! next request is due: the generator shares the machine with the server it measures.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mio::{Events, Interest, Poll, Token, net::TcpStream};

use crate::{random::Random, sample::Sample};

/// One step of load.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// Requests due per second.
    pub(crate) rate: f64,
    /// Length of the measured period.
    pub(crate) duration: Duration,
    /// Length of the unmeasured period before it.
    pub(crate) warm_up: Duration,
    /// How long to wait for responses after the last request was due.
    pub(crate) grace: Duration,
    /// Connections; a request that finds all of them busy waits, and the wait counts as latency.
    pub(crate) connections: usize,
    /// Seed of the schedule.
    pub(crate) seed: u64,
}

/// The result of a step.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Requests due in the measured period.
    pub(crate) due: usize,
    /// Responses with status 200 to these, per second.
    pub(crate) qps: f64,
    /// Milliseconds from due to answered, for responses with status 200.
    pub(crate) latency_ms: Sample,
    /// Milliseconds from due to answered, for responses with status 429 or 503.
    pub(crate) rejected_ms: Sample,
    /// Measured requests with any other status than 200, by status; 0 stands for a broken connection.
    pub(crate) errors: BTreeMap<u16, usize>,
    /// Measured requests still without a response at the end of the step.
    pub(crate) unanswered: usize,
}

impl Outcome {
    /// The number of measured requests that failed.
    pub(crate) fn failed(&self) -> usize {
        self.errors.values().sum::<usize>() + self.unanswered
    }

    /// The errors as `status:count`, or a dash.
    pub(crate) fn errors_text(&self) -> String {
        let mut parts: Vec<String> =
            self.errors.iter().map(|(status, count)| format!("{status}:{count}")).collect();
        if self.unanswered > 0 {
            parts.push(format!("unanswered:{}", self.unanswered));
        }
        if parts.is_empty() { "-".to_owned() } else { parts.join(" ") }
    }
}

/// The bytes of a GET request on a persistent connection.
pub(crate) fn get_request(address: SocketAddr, path_and_query: &str) -> Vec<u8> {
    format!("GET {path_and_query} HTTP/1.1\r\nhost: {address}\r\naccept: application/json\r\n\r\n")
        .into_bytes()
}

/// Percent-encodes a query value (RFC 3986: everything except the unreserved characters).
pub(crate) fn encode(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len() * 3 / 2);
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// The times after the start at which requests are due: a Poisson process of rate `rate`.
fn schedule(rate: f64, length: Duration, seed: u64) -> Vec<Duration> {
    let mut random = Random::new(seed);
    let mut due = Vec::new();
    let mut at = random.exponential() / rate;
    while at < length.as_secs_f64() {
        due.push(Duration::from_secs_f64(at));
        at += random.exponential() / rate;
    }
    due
}

/// Runs a step: sends `requests` in order, each at most once.
pub(crate) fn run(
    address: SocketAddr,
    step: &Step,
    requests: &mut dyn Iterator<Item = Vec<u8>>,
) -> Result<Outcome> {
    let schedule = schedule(step.rate, step.warm_up + step.duration, step.seed);
    let requests: Vec<Vec<u8>> = requests.take(schedule.len()).collect();
    ensure!(
        requests.len() == schedule.len(),
        "the schedule has {} requests, but only {} are available",
        schedule.len(),
        requests.len()
    );
    let mut generator = Generator::connect(address, step.connections)?;
    generator.run(step, &schedule, &requests)
}

struct Generator {
    address: SocketAddr,
    poll: Poll,
    connections: Vec<Connection>,
    /// Connections without a request, longest idle first: using them in this order keeps any from being idle
    /// so long that the server closes it as a request is sent.
    idle: VecDeque<usize>,
}

/// A connection and the request in progress on it.
struct Connection {
    stream: TcpStream,
    request: Option<usize>,
    unsent: Vec<u8>,
    received: Vec<u8>,
}

impl Generator {
    fn connect(address: SocketAddr, count: usize) -> Result<Generator> {
        let mut generator =
            Generator { address, poll: Poll::new()?, connections: Vec::new(), idle: (0..count).collect() };
        for position in 0..count {
            let connection = generator.open(position)?;
            generator.connections.push(connection);
        }
        Ok(generator)
    }

    fn open(&self, position: usize) -> Result<Connection> {
        // A blocking connect reports a refused connection immediately.
        let stream = std::net::TcpStream::connect(self.address)
            .with_context(|| format!("connect to {}", self.address))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        let interest = Interest::READABLE.add(Interest::WRITABLE);
        self.poll.registry().register(&mut stream, Token(position), interest)?;
        Ok(Connection { stream, request: None, unsent: Vec::new(), received: Vec::new() })
    }

    fn run(&mut self, step: &Step, schedule: &[Duration], requests: &[Vec<u8>]) -> Result<Outcome> {
        let mut tally = Tally::new(step, schedule);
        let mut waiting: VecDeque<usize> = VecDeque::new();
        let mut next = 0;
        let mut answered = 0;
        let mut events = Events::with_capacity(1024);
        let started = Instant::now();
        let end = step.warm_up + step.duration + step.grace;
        while answered < requests.len() {
            let now = started.elapsed();
            if now >= end {
                break;
            }
            while next < schedule.len() && schedule[next] <= now {
                waiting.push_back(next);
                next += 1;
            }
            while let (Some(&position), Some(&request)) = (self.idle.front(), waiting.front()) {
                self.idle.pop_front();
                waiting.pop_front();
                let connection = &mut self.connections[position];
                connection.request = Some(request);
                connection.unsent.extend_from_slice(&requests[request]);
                if connection.send().is_err() {
                    answered += 1;
                    tally.record(request, 0, started.elapsed());
                    self.reopen(position)?;
                }
            }
            let until = schedule.get(next).map_or(end, |due| *due).saturating_sub(started.elapsed());
            // Poll timeouts have millisecond resolution: poll without a timeout during the last millisecond.
            let timeout = if until > Duration::from_millis(2) {
                until - Duration::from_millis(1)
            } else {
                Duration::ZERO
            };
            if let Err(error) = self.poll.poll(&mut events, Some(timeout)) {
                ensure!(error.kind() == ErrorKind::Interrupted, "poll: {error}");
                continue;
            }
            for event in &events {
                let position = event.token().0;
                let done = self.connections[position].progress();
                let Some(request) = self.connections[position].request else {
                    if done.is_err() {
                        // The server closed an idle connection; its replacement stays in the idle list.
                        self.connections[position] = self.open(position)?;
                    }
                    continue;
                };
                let status = match done {
                    Ok(None) => continue,
                    Ok(Some(status)) => status,
                    Err(_) => 0,
                };
                answered += 1;
                tally.record(request, status, started.elapsed());
                if status == 0 {
                    self.reopen(position)?;
                } else {
                    self.connections[position].request = None;
                    self.idle.push_back(position);
                }
            }
        }
        Ok(tally.outcome())
    }

    fn reopen(&mut self, position: usize) -> Result<()> {
        self.connections[position] = self.open(position)?;
        self.idle.push_back(position);
        Ok(())
    }
}

impl Connection {
    fn send(&mut self) -> std::io::Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(sent) => {
                    self.unsent.drain(..sent);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends and receives without blocking; returns the status once the response is complete.
    fn progress(&mut self) -> std::io::Result<Option<u16>> {
        self.send()?;
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.received.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let Some((status, length)) = complete_response(&self.received)? else { return Ok(None) };
        self.received.drain(..length);
        Ok(Some(status))
    }
}

/// Status and length of the response at the start of `received`, once it is complete. Responses must have a
/// `content-length`, as Nearfield's search responses of up to 64 KiB do.
fn complete_response(received: &[u8]) -> std::io::Result<Option<(u16, usize)>> {
    let Some(head) = received.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&received[..head]).map_err(|_| ErrorKind::InvalidData)?;
    let mut lines = text.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1)?.parse::<u16>().ok())
        .ok_or(ErrorKind::InvalidData)?;
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok())
        .ok_or(ErrorKind::InvalidData)?;
    let whole = head + 4 + length;
    Ok((received.len() >= whole).then_some((status, whole)))
}

/// Counts the results of the requests after the warm-up.
struct Tally<'a> {
    schedule: &'a [Duration],
    first: usize,
    duration: Duration,
    latency_ms: Vec<f64>,
    rejected_ms: Vec<f64>,
    errors: BTreeMap<u16, usize>,
}

impl<'a> Tally<'a> {
    fn new(step: &Step, schedule: &'a [Duration]) -> Tally<'a> {
        let first = schedule.partition_point(|due| *due < step.warm_up);
        Tally {
            schedule,
            first,
            duration: step.duration,
            latency_ms: Vec::new(),
            rejected_ms: Vec::new(),
            errors: BTreeMap::new(),
        }
    }

    fn record(&mut self, request: usize, status: u16, at: Duration) {
        if request < self.first {
            return;
        }
        let ms = (at - self.schedule[request]).as_secs_f64() * 1e3;
        match status {
            200 => return self.latency_ms.push(ms),
            429 | 503 => self.rejected_ms.push(ms),
            _ => {}
        }
        *self.errors.entry(status).or_default() += 1;
    }

    fn outcome(self) -> Outcome {
        let due = self.schedule.len() - self.first;
        let failed: usize = self.errors.values().sum();
        let unanswered = due - self.latency_ms.len() - failed;
        Outcome {
            due,
            qps: self.latency_ms.len() as f64 / self.duration.as_secs_f64(),
            latency_ms: Sample::new(self.latency_ms),
            rejected_ms: Sample::new(self.rejected_ms),
            errors: self.errors,
            unanswered,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::BufRead, io::BufReader, net::TcpListener};

    use super::*;

    fn step(rate: f64, duration_ms: u64, connections: usize) -> Step {
        Step {
            rate,
            duration: Duration::from_millis(duration_ms),
            warm_up: Duration::ZERO,
            grace: Duration::from_secs(20),
            connections,
            seed: 1,
        }
    }

    /// A server that answers each request of each connection with `answer(number)`, on a thread of its own.
    fn serve(answer: impl Fn(usize) -> String + Send + Sync + Clone + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, answer) = (stream.unwrap(), answer.clone());
                std::thread::spawn(move || {
                    let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                    for number in
                        lines.map_while(Result::ok).filter(|line| line.is_empty()).zip(0..).map(|(_, n)| n)
                    {
                        stream.write_all(answer(number).as_bytes()).unwrap();
                    }
                });
            }
        });
        address
    }

    #[test]
    fn every_due_request_is_sent_once_and_statuses_are_counted() {
        let address = serve(|number| match number % 4 {
            3 => "HTTP/1.1 503 Busy\r\nretry-after: 1\r\nContent-Length: 4\r\n\r\nbusy".to_owned(),
            _ => "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_owned(),
        });
        let step = step(400.0, 500, 1);
        let due = schedule(step.rate, step.duration, step.seed).len();
        let outcome = run(address, &step, &mut (0..).map(|_| get_request(address, "/search?q=x"))).unwrap();
        assert_eq!(outcome.due, due);
        assert_eq!(outcome.errors, BTreeMap::from([(503, due / 4)]));
        assert_eq!((outcome.qps * 0.5).round() as usize, due - due / 4);
    }

    #[test]
    fn a_stall_is_charged_to_every_request_due_during_it() {
        let stall = Duration::from_millis(300);
        let address = serve(move |number| {
            if number == 0 {
                std::thread::sleep(stall);
            }
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_owned()
        });
        let outcome =
            run(address, &step(200.0, 600, 1), &mut (0..).map(|_| get_request(address, "/"))).unwrap();
        // Half of the requests are due during the stall and wait for half of it on average. A
        // closed-loop generator would count one slow request.
        assert_eq!(outcome.failed(), 0);
        assert!(outcome.latency_ms.quantile(0.75) > 100.0, "{:?}", outcome.latency_ms.quantile(0.75));
    }

    #[test]
    fn too_few_distinct_requests_are_an_error() {
        let address = serve(|_| String::new());
        let error = run(address, &step(100.0, 1000, 1), &mut std::iter::once(Vec::new())).unwrap_err();
        assert!(error.to_string().contains("only 1"), "{error}");
    }

    #[test]
    fn query_values_are_percent_encoded() {
        assert_eq!(encode("a-b c&d=é"), "a-b%20c%26d%3D%C3%A9");
    }
}
