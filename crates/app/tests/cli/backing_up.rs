//! `backup`, `restore`, `check` and `repair`.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::Stdio,
};

use serde_json::Value;

use crate::{
    documents::{home_with_items, thing, write_items},
    program::TestHome,
};

const THINGS: usize = 300;

/// The exported documents without their remaining time to live.
pub(crate) fn content(home: &TestHome) -> Vec<String> {
    let lines = home.ok(&["export", "--vectors"]);
    let mut content: Vec<String> = lines
        .lines()
        .map(|line| {
            let mut document: Value = serde_json::from_str(line).unwrap();
            assert!(document.as_object_mut().unwrap().remove("ttl_s").is_some(), "{line}");
            document.to_string()
        })
        .collect();
    content.sort();
    content
}

/// A store with indexed items and a snapshot.
fn filled() -> TestHome {
    let (home, things) = home_with_items(THINGS);
    home.ok(&["index", &things, "-c", "things", "--ttl", "30d"]);
    home
}

#[test]
fn restores_a_complete_backup() {
    let home = filled();
    let before = home.json(&["stats"]);
    let report = home.json(&["backup", "saved"]);
    assert_eq!((&report["documents"], &report["last_seq"]), (&before["documents"], &before["last_seq"]));
    assert_eq!(report["bytes"].as_u64(), Some(fs::metadata(home.path("saved")).unwrap().len()));
    assert!(home.ok(&["check", "saved"]).contains("300 documents"));
    assert!(home.ok(&["check"]).starts_with("nothing is damaged: 300 documents"));

    let other = TestHome::new();
    let saved = home.path("saved");
    other.ok(&["restore", saved.to_str().unwrap()]);
    assert_eq!(content(&other), content(&home));
    assert_eq!(other.json(&["stats"])["last_seq"], before["last_seq"]);
    assert!(other.ok(&["check"]).starts_with("nothing is damaged"));
    // Sequence numbers continue.
    let more = other.write("more.jsonl", format!("{}\n", thing(THINGS)));
    other.ok(&["index", &more, "-c", "things"]);
    assert_eq!(other.json(&["stats"])["documents"], THINGS + 1);
}

#[test]
fn restore_replaces_documents_only_with_replace() {
    let home = filled();
    home.ok(&["backup", "saved"]);
    home.ok(&["delete", "thing/1"]);
    home.fails(1, &["restore", "saved"], &["holds 299 documents", "replaced"]);
    assert_eq!(content(&home).len(), THINGS - 1);
    let report = home.json(&["restore", "saved", "--replace"]);
    assert_eq!(content(&home).len(), THINGS);
    let kept = report["kept"].as_str().unwrap();
    assert!(kept.ends_with("nearfield.redb.replaced-1"), "{kept}");
    assert!(fs::metadata(kept).unwrap().len() > 0);
}

#[test]
fn rejects_an_incomplete_backup_without_changing_anything() {
    let home = filled();
    home.ok(&["backup", "saved"]);
    let whole = fs::read(home.path("saved")).unwrap();
    let before = content(&home);
    for (len, flip) in [(0, None), (5, None), (whole.len() / 2, None), (whole.len() - 1, None)]
        .into_iter()
        .chain([9, 40, whole.len() / 3, whole.len() - 3].map(|at| (whole.len(), Some(at))))
    {
        let mut bytes = whole[..len].to_vec();
        if let Some(at) = flip {
            bytes[at] ^= 0x10;
        }
        let damaged = home.write("damaged", &bytes);
        home.fails(1, &["check", &damaged], &["damaged"]);
        home.fails(1, &["restore", &damaged, "--replace"], &["damaged"]);
        assert!(!home.path("data/nearfield.redb.unfinished").exists());
    }
    home.fails(
        1,
        &["restore", &home.write("text", "this is no backup at all"), "--replace"],
        &["not a Nearfield backup"],
    );
    home.fails(1, &["restore", "nowhere"], &["nowhere"]);
    assert_eq!(content(&home), before);
}

#[test]
fn a_killed_restore_keeps_the_old_store() {
    let home = filled();
    home.ok(&["backup", "saved"]);
    let before = content(&home);
    // A killed restore leaves an incomplete store.
    home.write("data/nearfield.redb.unfinished", "half of a store");
    assert_eq!(content(&home), before);
    assert!(!home.path("data/nearfield.redb.unfinished").exists());
}

#[test]
fn backs_up_through_the_server_and_refuses_to_restore_into_a_directory_in_use() {
    let home = filled();
    let mut server =
        home.command(&["serve", "--listen", "127.0.0.1:0"]).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(server.stderr.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains("serving")));
    let report = home.json(&["backup", "saved"]);
    assert_eq!(report["documents"], THINGS);
    for command in [&["check"][..], &["repair"], &["restore", "saved", "--replace"]] {
        home.fails(4, command, &["in use"]);
    }
    server.kill().unwrap();
    server.wait().unwrap();
    let other = TestHome::new();
    other.ok(&["restore", home.path("saved").to_str().unwrap()]);
    assert_eq!(content(&other), content(&home));
}

#[test]
fn check_finds_damage_and_repair_saves_readable_rows() {
    let home = filled();
    let store = home.path("data/nearfield.redb");
    let mut bytes = fs::read(&store).unwrap();
    // Inside a value that occurs in one document only.
    let needle = b"Thing \"123\"\nof many";
    let at = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    for at in
        (0..bytes.len() - needle.len()).filter(|at| bytes[*at..].starts_with(needle)).collect::<Vec<_>>()
    {
        bytes[at] ^= 1;
    }
    assert!(at > 0);
    fs::write(&store, &bytes).unwrap();
    let snapshots: Vec<_> =
        fs::read_dir(home.path("data/snapshots")).unwrap().map(|e| e.unwrap().path()).collect();
    let mut snapshot = fs::read(&snapshots[0]).unwrap();
    let middle = snapshot.len() / 2;
    snapshot[middle] ^= 1;
    fs::write(&snapshots[0], snapshot).unwrap();

    let found = home.run(&["check"]);
    assert_eq!(found.code, Some(1), "{found:?}");
    assert!(found.out.contains("checksum does not match"), "{found:?}");
    assert!(found.out.contains("nearfield.redb: "), "{found:?}");
    assert!(
        found.out.contains(".snapshot: it is damaged: ") && found.out.contains("the frame at byte "),
        "{found:?}"
    );

    let report = home.json(&["repair"]);
    assert_eq!(report["documents"], THINGS - 1);
    assert!(report["lost"][0].as_str().unwrap().contains("table documents, key "), "{report}");
    assert_eq!(report["lost_rows"], 1, "{report}");
    assert!(report["kept"].as_str().unwrap().ends_with("nearfield.redb.damaged-1"), "{report}");
    assert!(home.ok(&["check"]).starts_with("nothing is damaged: 299 documents"));
    assert!(!content(&home).iter().any(|document| document.contains("\"thing/123\"")));
    // The repaired store is writable.
    let things = write_items(&home, THINGS);
    home.ok(&["index", &things, "-c", "things", "--ttl", "30d"]);
    assert_eq!(content(&home).len(), THINGS);
}
