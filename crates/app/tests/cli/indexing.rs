//! How `index` reacts to server errors, and what it reports about every row.

use std::{
    collections::HashSet,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};

use crate::{
    fake_server::{FakeServer, Response},
    program::TestHome,
};

/// Much longer than any test takes.
const TIMEOUT: Duration = Duration::from_secs(60);

fn csv(ids: impl IntoIterator<Item = String>) -> String {
    let rows = ids.into_iter().map(|id| format!("{id},title of {id},content of {id}\n"));
    std::iter::once("id,title,content\n".to_owned()).chain(rows).collect()
}

fn numbered_rows(count: usize) -> String {
    csv((0..count).map(|number| format!("d{number}")))
}

#[test]
fn waits_for_an_overloaded_server() {
    let home = TestHome::new();
    let file = home.write("a.csv", numbered_rows(3));
    let posts = AtomicUsize::new(0);
    let server = FakeServer::with_articles(move |request| match posts.fetch_add(1, SeqCst) {
        0 => Response {
            headers: vec![("Retry-After", "0".to_owned())],
            ..Response::problem(503, "overloaded", "the queue is full")
        },
        // Partially accepted: only the rest must be sent again.
        1 => Response::results(&request.ids(), |id| if id == "d1" { Err(503) } else { Ok("created") }),
        _ => {
            assert_eq!(request.ids(), ["d1"]);
            Response::results(&request.ids(), |_| Ok("updated"))
        }
    });
    let output =
        home.run(&["index", &file, "--url", &server.url(), "--acks", home.path("acks").to_str().unwrap()]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(output.out, "rows in 3 = indexed 3 + unchanged 0 + rejected 0\n");
    assert!(output.err.contains("overloaded (the queue is full)"), "{output:?}");
    let mut acks: Vec<String> = home.read("acks").lines().map(str::to_owned).collect();
    acks.sort();
    assert_eq!(acks, ["d0", "d1", "d2"]);
}

#[test]
fn halves_batches_that_time_out() {
    let home = TestHome::new();
    let file = home.write("a.csv", numbered_rows(21));
    let received = Arc::new(Mutex::new(Vec::new()));
    let seen = received.clone();
    let server = FakeServer::with_articles(move |request| {
        let ids = request.ids();
        if ids.len() > 5 {
            return Response::results(&ids, |_| Err(504));
        }
        seen.lock().unwrap().extend(ids.clone());
        Response::results(&ids, |_| Ok("created"))
    });
    let output = home.run(&["index", &file, "--url", &server.url()]);
    assert_eq!(output.out, "rows in 21 = indexed 21 + unchanged 0 + rejected 0\n", "{output:?}");
    assert!(output.err.contains("sending 5 per request"), "{output:?}");
    let expected: Vec<String> = (0..21).map(|number| format!("d{number}")).collect();
    assert_eq!(*received.lock().unwrap(), expected, "every document once, in order");
}

#[test]
fn counts_shows_and_saves_rejected_rows() {
    let home = TestHome::new();
    let server = FakeServer::with_articles(|request| {
        Response::results(&request.ids(), |id| match id {
            "bad" => Err(422),
            "old" => Ok("unchanged"),
            _ => Ok("created"),
        })
    });
    let file = home.write("a.csv", "id,title,content\na,A,x\nbad,B,y\nragged\nold,C,z\nlast,D,w\n");
    let url = server.url();
    let output =
        home.run(&["index", &file, "--url", &url, "--on-error", "skip", "--rejects", "rejects.jsonl"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(output.out, "rows in 5 = indexed 2 + unchanged 1 + rejected 2\n");
    assert!(output.err.contains("a.csv:3 (bad): bad is rejected"), "{output:?}");
    assert!(output.err.contains("a.csv:4"), "{output:?}");
    let rejects: Vec<serde_json::Value> =
        home.read("rejects.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rejects.len(), 2);
    assert_eq!(
        (&rejects[0]["line"], &rejects[0]["id"], &rejects[0]["row"]),
        (&3.into(), &"bad".into(), &"bad,B,y".into())
    );
    assert_eq!((&rejects[1]["line"], &rejects[1]["row"]), (&4.into(), &"ragged".into()));

    let report = home.json(&["index", &file, "--url", &url, "--on-error", "skip"]);
    let expected =
        [("rows", 5), ("indexed", 2), ("created", 2), ("updated", 0), ("unchanged", 1), ("rejected", 2)];
    for (name, count) in expected {
        assert_eq!(report[name], count, "{name} in {report}");
    }
    assert_eq!((&report["interrupted"], &report["error"]), (&false.into(), &serde_json::Value::Null));
}

/// A server that creates every document, and the bodies it has received.
fn recording_server() -> (FakeServer, Arc<Mutex<String>>) {
    let bodies = Arc::new(Mutex::new(String::new()));
    let received = bodies.clone();
    let server = FakeServer::with_articles(move |request| {
        received.lock().unwrap().push_str(&request.body);
        Response::results(&request.ids(), |_| Ok("created"))
    });
    (server, bodies)
}

#[test]
fn one_column_serves_as_id_title_and_text() {
    let home = TestHome::new();
    let (server, bodies) = recording_server();
    let url = server.url();
    let index = |name: &str, content: &str, flags: &[&str]| {
        let file = home.write(name, content);
        home.ok(&[&["index", &file, "--url", &url], flags].concat());
        std::mem::take(&mut *bodies.lock().unwrap())
    };
    let flags = ["--id", "question", "--title", "question", "--content", "answer"];
    let expected = "{\"id\":\"How?\",\"title\":\"How?\",\"content\":\"So.\"}\n";
    assert_eq!(index("qa.csv", "question,answer\nHow?,So.\n", &flags), expected);
    assert_eq!(index("qa.jsonl", "{\"question\":\"How?\",\"answer\":\"So.\"}\n", &flags), expected);
    assert_eq!(
        index("one.csv", "question,category\nHow?,x\n", &["--id", "question", "--content", "question"]),
        "{\"id\":\"How?\",\"content\":\"How?\",\"category\":\"x\"}\n"
    );
}

#[test]
fn finds_and_tells_the_delimiter() {
    let home = TestHome::new();
    let (server, bodies) = recording_server();
    let file = home.write("a.csv", "id;title;content\n1;A;x\n");
    let output = home.run(&["index", &file, "--url", &server.url()]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!(output.err.matches("the delimiter is ';'").count(), 1, "{output:?}");
    assert_eq!(*bodies.lock().unwrap(), "{\"id\":\"1\",\"title\":\"A\",\"content\":\"x\"}\n");
}

#[test]
fn tells_how_many_rows_later_rows_have_replaced() {
    let home = TestHome::new();
    let (server, _) = recording_server();
    let file = home.write("a.csv", "id,title,content\n7,A,x\n7,B,y\n8,C,z\n7,D,w\n");
    let args = ["index", &file, "--url", &server.url(), "--batch-size", "2"];
    assert_eq!(
        home.ok(&args),
        "rows in 4 = indexed 2 + unchanged 0 + replaced by later rows with the same id 2 + rejected 0\n"
    );
    let report = home.json(&args);
    assert_eq!((&report["rows"], &report["indexed"], &report["replaced"]), (&4.into(), &2.into(), &2.into()));
}

#[test]
fn a_stray_quote_swallows_no_rows_silently() {
    let home = TestHome::new();
    let (server, bodies) = recording_server();
    let file = home.write("a.csv", "id,title,content\n1,A,\"first\n2,B,second\n3,C,\"third\"\n4,D,fourth\n");
    let output = home.run(&["index", &file, "--url", &server.url(), "--on-error", "skip"]);
    assert_eq!(output.out, "rows in 2 = indexed 1 + unchanged 0 + rejected 1\n", "{output:?}");
    assert!(output.err.contains("lines 2 to 4 were read as one row"), "{output:?}");
    assert_eq!(*bodies.lock().unwrap(), "{\"id\":\"4\",\"title\":\"D\",\"content\":\"fourth\"}\n");
}

#[test]
fn stops_at_the_first_rejected_row_by_default() {
    let home = TestHome::new();
    let server = FakeServer::with_articles(|request| Response::results(&request.ids(), |_| Ok("created")));
    let file = home.write("a.csv", "id,title,content\na,A,x\nb,B,y\nragged\nc,C,z\n");
    let output = home.fails(1, &["index", &file, "--url", &server.url()], &["a.csv:4", "--on-error skip"]);
    assert_eq!(output.out, "rows in 3 = indexed 2 + unchanged 0 + rejected 1\n");
}

#[test]
fn reports_an_input_error_after_indexing_the_rows_before_it() {
    let home = TestHome::new();
    let server = FakeServer::with_articles(|request| Response::results(&request.ids(), |_| Ok("created")));
    let mut compressed = Vec::new();
    let mut encoder = flate2::write::GzEncoder::new(&mut compressed, flate2::Compression::none());
    std::io::Write::write_all(&mut encoder, numbered_rows(20_000).as_bytes()).unwrap();
    encoder.finish().unwrap();
    compressed.truncate(compressed.len() / 2);
    let file = home.write("a.csv.gz", compressed);
    let output = home.fails(1, &["index", &file, "--url", &server.url()], &["a.csv.gz"]);
    assert!(output.out.starts_with("rows in ") && !output.out.starts_with("rows in 0"), "{output:?}");
}

#[test]
fn stops_if_the_server_is_out_of_space() {
    let home = TestHome::new();
    let server = FakeServer::with_articles(|request| {
        Response::results(&request.ids(), |id| if id == "d1" { Err(507) } else { Ok("created") })
    });
    let file = home.write("a.csv", numbered_rows(3));
    let args = ["index", &file, "--url", &server.url(), "--on-error", "skip"];
    let output = home.fails(1, &args, &["d1 is rejected"]);
    assert_eq!(output.out, "rows in 2 = indexed 2 + unchanged 0 + rejected 0\n");
}

#[test]
fn sends_a_second_batch_before_the_first_response() {
    let home = TestHome::new();
    let file = home.write("a.csv", numbered_rows(4));
    let requests = Arc::new((Mutex::new(0), Condvar::new()));
    let server = FakeServer::with_articles(move |request| {
        let (count, changed) = &*requests;
        *count.lock().unwrap() += 1;
        changed.notify_all();
        let (_count, waited) =
            changed.wait_timeout_while(count.lock().unwrap(), TIMEOUT, |count| *count < 2).unwrap();
        if waited.timed_out() {
            return Response::problem(500, "timeout", "no second batch arrived");
        }
        Response::results(&request.ids(), |_| Ok("created"))
    });
    let out = home.ok(&["index", &file, "--batch-size", "2", "--url", &server.url()]);
    assert_eq!(out, "rows in 4 = indexed 4 + unchanged 0 + rejected 0\n");
}

#[test]
fn never_sends_two_rows_of_one_document_concurrently() {
    let home = TestHome::new();
    // Every batch of two contains a newer version of `same`.
    let rows: String = (0..20).map(|number| format!("same,t,{number}\nother{number},t,c\n")).collect();
    let file = home.write("a.csv", format!("id,title,content\n{rows}"));
    let in_flight = Arc::new(Mutex::new(HashSet::new()));
    let versions = Arc::new(Mutex::new(Vec::new()));
    let seen = versions.clone();
    let server = FakeServer::with_articles(move |request| {
        let ids = request.ids();
        for id in &ids {
            if !in_flight.lock().unwrap().insert(id.clone()) {
                return Response::problem(500, "concurrent", "a document is in flight twice");
            }
        }
        let first: serde_json::Value = serde_json::from_str(request.body.lines().next().unwrap()).unwrap();
        seen.lock().unwrap().push(first["content"].as_str().unwrap().parse::<u32>().unwrap());
        for id in &ids {
            in_flight.lock().unwrap().remove(id);
        }
        Response::results(&ids, |_| Ok("created"))
    });
    home.ok(&["index", &file, "--batch-size", "2", "--url", &server.url()]);
    assert_eq!(*versions.lock().unwrap(), (0..20).collect::<Vec<u32>>());
}

#[cfg(unix)]
#[test]
fn ctrl_c_finishes_and_counts_batches_in_flight() {
    use std::{os::unix::process::ExitStatusExt as _, process::Stdio};

    let home = TestHome::new();
    let file = home.write("a.csv", numbered_rows(1000));
    let (request_sender, request_receiver) = mpsc::channel();
    let (response_sender, response_receiver) = mpsc::channel::<()>();
    let response_receiver = Mutex::new(response_receiver);
    let server = FakeServer::with_articles(move |request| {
        request_sender.send(()).unwrap();
        response_receiver.lock().unwrap().recv_timeout(TIMEOUT).unwrap();
        Response::results(&request.ids(), |_| Ok("created"))
    });
    let mut command = home.command(&["index", &file, "--batch-size", "10", "--url", &server.url()]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    for _ in 0..2 {
        request_receiver.recv_timeout(TIMEOUT).unwrap();
    }
    crate::program::signal(&child, "INT");
    // The message appears before the responses are sent.
    let mut err = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut err, &mut line).unwrap();
    assert!(line.contains("interrupted"), "{line}");
    response_sender.send(()).unwrap();
    response_sender.send(()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "rows in 20 = indexed 20 + unchanged 0 + rejected 0\n"
    );
    assert_eq!((output.status.code(), output.status.signal()), (Some(130), None));
    assert!(request_receiver.try_recv().is_err(), "no third batch was sent");
}

#[test]
fn rejects_invalid_files_before_sending_anything() {
    let home = TestHome::new();
    let server = FakeServer::with_articles(|_| Response::problem(500, "sent", "something was sent"));
    let url = server.url();
    let valid = home.write("valid.csv", numbered_rows(3));
    let header = home.write("header.csv", "key,text\n1,x\n");
    home.fails(2, &["index", &valid, &header, "--url", &url], &["header.csv", "key, text", "--id"]);
    home.fails(1, &["index", &valid, "missing.csv", "--url", &url], &["missing.csv"]);
    home.fails(1, &["index", &valid, &home.write("x.dat", "x"), "--url", &url], &["--format"]);
    let duplicate = home.write("duplicate.csv", "id,content,content\n");
    home.fails(2, &["index", &valid, &duplicate, "--url", &url], &["twice"]);
    home.fails(2, &["index", "-", "-", "--url", &url], &["standard input"]);
}

#[test]
fn sends_standard_input_with_column_mapping_and_ttl() {
    let home = TestHome::new();
    let bodies = Arc::new(Mutex::new(String::new()));
    let seen = bodies.clone();
    let server = FakeServer::with_articles(move |request| {
        seen.lock().unwrap().push_str(&request.body);
        Response::results(&request.ids(), |_| Ok("created"))
    });
    let args = [
        "index",
        "-",
        "--id",
        "key",
        "--title",
        "name",
        "--content",
        "text",
        "--ttl",
        "2m",
        "--url",
        &server.url(),
    ];
    let mut command = assert_cmd::Command::from_std(home.command(&args));
    command.write_stdin("key;name;text\n7;A;b,c\n").args(["--delimiter", ";"]).assert().success();
    assert_eq!(*bodies.lock().unwrap(), "{\"id\":\"7\",\"ttl_s\":120,\"title\":\"A\",\"content\":\"b,c\"}\n");
    bodies.lock().unwrap().clear();
    let mut command = assert_cmd::Command::from_std(home.command(&["index", "-", "--url", &server.url()]));
    command.write_stdin("{\"id\":1,\"body\":\"b\",\"n\":1.50}\n").assert().success();
    assert_eq!(*bodies.lock().unwrap(), "{\"id\":\"1\",\"content\":\"b\",\"n\":1.50}\n");
}
