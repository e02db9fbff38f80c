//! Clients that send requests in a loop and record every response.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use ureq::Agent;

use crate::{
    RESPONSE_TIMEOUT,
    program::{Response, agent},
};

/// Pause between a response and the next request of a client.
const PAUSE: Duration = Duration::from_millis(5);

/// Sends a request, given its number, which starts at 0 for each client.
pub(crate) type Client = Box<dyn Fn(&Agent, usize) -> Response + Send>;

/// A recorded response.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) sent_at: Instant,
    pub(crate) took: Duration,
    pub(crate) status: u16,
    /// The error code of a failure.
    pub(crate) code: String,
    pub(crate) detail: String,
}

/// The running clients.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    samples: Arc<Mutex<Vec<Sample>>>,
    clients: Vec<JoinHandle<()>>,
}

/// What the clients recorded.
pub(crate) struct LoadReport {
    pub(crate) samples: Vec<Sample>,
}

impl Load {
    pub(crate) fn start(clients: Vec<Client>) -> Load {
        let stop = Arc::<AtomicBool>::default();
        let samples = Arc::<Mutex<Vec<Sample>>>::default();
        let clients = clients
            .into_iter()
            .map(|client| {
                let (stop, samples) = (stop.clone(), samples.clone());
                thread::spawn(move || run(&client, &stop, &samples))
            })
            .collect();
        Load { stop, samples, clients }
    }

    /// Waits until this many more requests succeeded.
    pub(crate) fn wait_for_successes(&self, count: usize) {
        let successes = || self.samples.lock().unwrap().iter().filter(|sample| sample.status < 300).count();
        let target = successes() + count;
        while successes() < target {
            assert!(self.clients.iter().all(|client| !client.is_finished()), "a client failed");
            thread::sleep(PAUSE);
        }
    }

    /// Stops the clients and returns all responses. A client that panicked, as for a request without a response, fails
    /// the test.
    pub(crate) fn stop(self) -> LoadReport {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("every request gets a correct response");
        }
        LoadReport { samples: std::mem::take(&mut *self.samples.lock().unwrap()) }
    }
}

fn run(client: &Client, stop: &AtomicBool, samples: &Mutex<Vec<Sample>>) {
    let agent = agent();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let sent_at = Instant::now();
        let response = client(&agent, number);
        let text = |name: &str| response.json[name].as_str().unwrap_or_default().to_owned();
        samples.lock().unwrap().push(Sample {
            sent_at,
            took: response.took,
            status: response.status,
            code: text("code"),
            detail: text("detail"),
        });
        thread::sleep(PAUSE);
    }
}

impl LoadReport {
    /// Asserts that every response came in time and that every error has an expected code and a detail.
    pub(crate) fn check(&self, is_expected_code: impl Fn(&str) -> bool) {
        for sample in &self.samples {
            assert!(sample.took <= RESPONSE_TIMEOUT, "too late: {sample:?}");
            let is_expected = match sample.status {
                200 | 201 => true,
                503 => is_expected_code(&sample.code) && !sample.detail.is_empty(),
                _ => false,
            };
            assert!(is_expected, "{sample:?}");
        }
    }

    /// Time from `since` to the last rejected request; zero if there is none.
    pub(crate) fn last_rejected(&self, since: Instant) -> Duration {
        let rejected = self.samples.iter().filter(|sample| sample.status == 503 && sample.sent_at >= since);
        rejected.map(|sample| sample.sent_at - since).max().unwrap_or_default()
    }

    /// Prints a summary of the responses to requests sent from `since` on.
    pub(crate) fn print_summary(&self, what: &str, since: Instant) {
        let after = || self.samples.iter().filter(|sample| sample.sent_at >= since);
        eprintln!(
            "{what}: {} requests, {} rejected, slowest {:?}, last rejection after {:?}",
            after().count(),
            after().filter(|sample| sample.status == 503).count(),
            after().map(|sample| sample.took).max().unwrap_or_default(),
            self.last_rejected(since),
        );
    }
}
