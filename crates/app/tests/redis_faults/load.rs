//! Clients that ask without end, and note every answer.

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

/// Clients at once.
const CLIENTS: usize = 8;

/// Between an answer and the next question.
const PAUSE: Duration = Duration::from_millis(5);

/// What a client was answered.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    pub(crate) asked: Instant,
    pub(crate) took: Duration,
    pub(crate) status: u16,
    /// Of a failure.
    pub(crate) code: String,
}

/// The clients.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<Mutex<Vec<Answered>>>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Half of the clients search, half write.
    pub(crate) fn start(url: &str) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(Mutex::new(Vec::new()));
        let clients = (0..CLIENTS)
            .map(|client| {
                let (stop, answered, url) = (stop.clone(), answered.clone(), url.to_owned());
                thread::spawn(move || ask(client, &url, &stop, &answered))
            })
            .collect();
        Load { stop, answered, clients }
    }

    /// Waits until so many requests were answered.
    pub(crate) fn wait_for_answers(&self, count: usize) {
        while self.answered.lock().unwrap().len() < count {
            assert!(self.clients.iter().all(|client| !client.is_finished()), "a client failed");
            thread::sleep(PAUSE);
        }
    }

    /// All answers. A request without one fails the test.
    pub(crate) fn stop(self) -> Vec<Answered> {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("every request is answered");
        }
        std::mem::take(&mut *self.answered.lock().unwrap())
    }
}

fn ask(client: usize, url: &str, stop: &AtomicBool, answered: &Mutex<Vec<Answered>>) {
    let agent = agent();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let asked = Instant::now();
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
        answered.lock().unwrap().push(Answered { asked, took: reply.took, status: reply.status, code });
        thread::sleep(PAUSE);
    }
}
