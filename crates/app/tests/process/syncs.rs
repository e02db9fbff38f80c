//! In which order the process writes, syncs and answers, as the system sees it.

use std::{fs, process::Command, thread};

use serde_json::json;

use crate::{
    ledger::vector,
    server::{Server, agent, send_by},
};

const WRITERS: u64 = 64;
const WRITES: u64 = 16;

/// A server under `strace`, which notes its writes, syncs and answers; `None` where there is none.
pub(crate) fn traced(home: &std::path::Path, variables: &[(&str, &str)]) -> Option<Server> {
    if !Command::new("strace").arg("-V").output().is_ok_and(|output| output.status.success()) {
        assert!(std::env::var_os("NEARFIELD_REQUIRE_TOOLS").is_none(), "strace is missing");
        println!("SKIPPED: there is no strace here");
        return None;
    }
    let trace = home.join("trace");
    let calls = "trace=pwrite64,fdatasync,fsync,sendto,write,writev,ftruncate";
    let words =
        ["strace", "-f", "--seccomp-bpf", "-qq", "-s", "24", "-e", calls, "-o", trace.to_str().unwrap()];
    let mut server = Server::start_with(home, &words, variables);
    server.wait_until_ready();
    server.make_collection();
    Some(server)
}

pub(crate) fn write(agent: &ureq::Agent, address: &str, number: u64) {
    let url = format!("{address}/collections/notes/documents/{number}");
    let document = json!({"text": "a word", "version": number, "place": vector("traced", number)});
    let (status, answer) = send_by(agent, "PUT", &url, "application/json", document.to_string()).unwrap();
    assert_eq!(status, 201, "{answer}");
}

/// What happened from the line `from` on: P a write to a file, S a sync that ended, A an answer to a write.
pub(crate) fn story(home: &std::path::Path, from: usize) -> (String, usize) {
    let trace = fs::read_to_string(home.join("trace")).unwrap();
    let lines: Vec<&str> = trace.lines().collect();
    let told = lines[from..].iter().filter_map(|line| {
        // A call that was interrupted by another thread's ends in a line of its own.
        let ended = !line.contains("<unfinished");
        if line.contains("pwrite64(") {
            Some('P')
        } else if (line.contains("fdatasync") || line.contains("fsync")) && ended {
            Some('S')
        } else if line.contains("\"HTTP/1.1 201") {
            Some('A')
        } else {
            None
        }
    });
    (told.collect(), lines.len())
}

#[test]
fn an_answer_comes_after_the_sync_that_covers_it_and_many_share_one() {
    let home = tempfile::tempdir().unwrap();
    let Some(mut server) = traced(home.path(), &[]) else { return };
    let (_, mut from) = story(home.path(), 0);
    for number in 0..10 {
        write(&agent(), &server.address(), number);
        let told;
        (told, from) = story(home.path(), from);
        let (before, answer) = told.split_at(told.find('A').unwrap_or_else(|| panic!("no answer in {told}")));
        assert!(answer.starts_with('A') && before.contains('P'), "{told}");
        let last_write = before.rfind('P').unwrap();
        assert!(before[last_write..].contains('S'), "answered before what was written was synced: {told}");
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
    let (told, _) = story(home.path(), from);
    let count = |kind: char| told.chars().filter(|told| *told == kind).count() as u64;
    let (answers, syncs) = (count('A'), count('S'));
    println!("{WRITERS} writers: {answers} writes answered, {syncs} syncs (two a commit)");
    assert_eq!(answers, WRITERS * WRITES);
    // Two a commit, and a commit for 16 writes and more where the machine is not busy otherwise; without groups it
    // would be one for each.
    assert!(syncs <= 2 * answers / 4, "{syncs} syncs for {answers} writes");
    server.kill();
}
