//! The data directory of a running server is moved: the server says so, and acknowledges no more writes.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::server::{Server, get, send};

/// Maximum duration until the server notices: five times the documented second.
const NOTICED: Duration = Duration::from_secs(5);

#[test]
fn a_server_whose_store_was_moved_rejects_writes_and_is_not_ready() {
    for is_idle in [true, false] {
        let home = tempfile::tempdir().unwrap();
        let mut server = Server::start(home.path());
        server.wait_until_ready();
        server.create_collection();
        let url = server.address();
        let store = home.path().join("data").join("nearfield.redb");
        fs::rename(&store, home.path().join("moved")).unwrap();
        if !is_idle {
            let document = json!({"text": "a"});
            for (method, path, body) in [
                ("PUT", "/collections/notes/documents/1", &document),
                ("PUT", "/aliases/other", &json!({"collection": "notes"})),
            ] {
                let (status, body) = send(method, &format!("{url}{path}"), body).unwrap();
                assert_eq!((status, &body["code"]), (503, &json!("read-only")), "{method} {path}: {body}");
            }
        }
        let moved = Instant::now();
        let body = loop {
            let (status, body) = get(&format!("{url}/readyz")).unwrap();
            if status == 503 {
                break body;
            }
            assert!(moved.elapsed() < NOTICED, "{body}");
            thread::sleep(Duration::from_millis(50));
        };
        assert!(body.to_string().contains("was moved or deleted while it was open"), "{body}");
        server.stop();
    }
}
