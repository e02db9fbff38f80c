//! Clients that send requests in a loop and record every response.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::json;

use crate::program::{agent, timed};

/// Number of clients.
const CLIENTS: usize = 8;

/// Pause between a response and the next request.
const PAUSE: Duration = Duration::from_millis(5);

/// A recorded response.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) sent_at: Instant,
    pub(crate) took: Duration,
    pub(crate) status: u16,
    /// The error code of a failure.
    pub(crate) code: String,
}

/// The running clients.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    responses: Arc<Mutex<Vec<Response>>>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts the clients; half of them search, half write.
    pub(crate) fn start(url: &str) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let responses = Arc::new(Mutex::new(Vec::new()));
        let clients = (0..CLIENTS)
            .map(|client| {
                let (stop, responses, url) = (stop.clone(), responses.clone(), url.to_owned());
                thread::spawn(move || ask(client, &url, &stop, &responses))
            })
            .collect();
        Load { stop, responses, clients }
    }

    /// Waits until this many requests were answered.
    pub(crate) fn wait_for_answers(&self, count: usize) {
        while self.responses.lock().unwrap().len() < count {
            assert!(self.clients.iter().all(|client| !client.is_finished()), "a client failed");
            thread::sleep(PAUSE);
        }
    }

    /// Stops the clients and returns all responses. A request without a response fails the test.
    pub(crate) fn stop(self) -> Vec<Response> {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("every request gets a response");
        }
        std::mem::take(&mut *self.responses.lock().unwrap())
    }
}

fn ask(client: usize, url: &str, stop: &AtomicBool, responses: &Mutex<Vec<Response>>) {
    let agent = agent();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let sent_at = Instant::now();
        let reply = timed(|| {
            if client.is_multiple_of(2) {
                let body = json!({"vector": [number % 200, 0, 0, 1], "k": 10, "fields": []});
                let search = agent.post(format!("{url}/collections/docs/search"));
                search.content_type("application/json").send(body.to_string())
            } else {
                let body = json!({"rank": number, "place": [number, 0, 0, 1]});
                let id = (client * 10 + number % 10) % 200;
                let put = agent.put(format!("{url}/collections/docs/documents/{id}"));
                put.content_type("application/json").send(body.to_string())
            }
        });
        let code = reply.json["code"].as_str().unwrap_or_default().to_owned();
        responses.lock().unwrap().push(Response { sent_at, took: reply.took, status: reply.status, code });
        thread::sleep(PAUSE);
    }
}
