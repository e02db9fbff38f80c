//! The order in which the process writes, syncs and responds, observed by system calls.

use std::{fs, path::Path, thread};

use serde_json::json;

use crate::{
    ledger::vector,
    server::{Server, agent, send_with},
    tools::start_with_strace,
};

const WRITERS: u64 = 64;
const WRITES: u64 = 16;

/// A server with an empty collection under `strace`, which records writes, syncs and responses; `None` if strace is not
/// installed.
pub(crate) fn start_traced(home: &Path, variables: &[(&str, &str)]) -> Option<Server> {
    let calls = "trace=pwrite64,fdatasync,fsync,sendto,write,writev,ftruncate";
    let server = start_with_strace(home, &["-s", "24", "-e", calls], variables)?;
    server.create_collection();
    Some(server)
}

pub(crate) fn write(agent: &ureq::Agent, address: &str, number: u64) {
    let url = format!("{address}/collections/notes/documents/{number}");
    let document = json!({"text": "a word", "version": number, "place": vector("traced", number)});
    let (status, response) = send_with(agent, "PUT", &url, "application/json", document.to_string()).unwrap();
    assert_eq!(status, 201, "{response}");
}

/// The events from line `from` on: P is a write to a file, S a completed sync, R a response to a write.
pub(crate) fn trace_events(home: &Path, from: usize) -> (String, usize) {
    let trace = fs::read_to_string(home.join("trace")).unwrap();
    let lines: Vec<&str> = trace.lines().collect();
    let events = lines[from..].iter().filter_map(|line| {
        // The end of a call interrupted by another thread is on a separate line.
        let is_complete = !line.contains("<unfinished");
        if line.contains("pwrite64(") {
            Some('P')
        } else if (line.contains("fdatasync") || line.contains("fsync")) && is_complete {
            Some('S')
        } else if line.contains("\"HTTP/1.1 201") {
            Some('R')
        } else {
            None
        }
    });
    (events.collect(), lines.len())
}

#[test]
fn a_response_follows_the_sync_of_its_write_and_writes_share_syncs() {
    let home = tempfile::tempdir().unwrap();
    let Some(mut server) = start_traced(home.path(), &[]) else { return };
    let (_, mut from) = trace_events(home.path(), 0);
    for number in 0..10 {
        write(&agent(), &server.address(), number);
        let events;
        (events, from) = trace_events(home.path(), from);
        let (before, response) =
            events.split_at(events.find('R').unwrap_or_else(|| panic!("no response in {events}")));
        assert!(response.starts_with('R') && before.contains('P'), "{events}");
        let last_write = before.rfind('P').unwrap();
        assert!(before[last_write..].contains('S'), "a response precedes the sync of its write: {events}");
    }

    let address = server.address();
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let address = &address;
            scope.spawn(move || {
                let agent = agent();
                (0..WRITES).for_each(|number| write(&agent, address, 1000 + writer * WRITES + number));
            });
        }
    });
    let (events, _) = trace_events(home.path(), from);
    let count = |kind: char| events.chars().filter(|event| *event == kind).count() as u64;
    let (responses, syncs) = (count('R'), count('S'));
    println!("{WRITERS} writers: {responses} responses, {syncs} syncs (two per commit)");
    assert_eq!(responses, WRITERS * WRITES);
    // Two syncs per commit, and one commit per 16 or more writes on an idle machine. Without group commit, each write
    // would have its own.
    assert!(syncs <= 2 * responses / 4, "{syncs} syncs for {responses} writes");
    server.kill();
}
