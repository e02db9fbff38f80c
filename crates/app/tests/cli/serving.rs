//! `serve` under a service manager.
#![cfg(target_os = "linux")]

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    os::unix::net::UnixDatagram,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use server::serve::ServerAddress;

use crate::{
    fake_server::{FakeServer, Response},
    program::{TestHome, signal},
};

/// Longer than any step takes.
const TIMEOUT: Duration = Duration::from_secs(60);

fn receive(manager: &UnixDatagram) -> String {
    let mut message = [0; 100];
    let length = manager.recv(&mut message).unwrap();
    String::from_utf8(message[..length].to_vec()).unwrap()
}

fn status(url: &str, key: &str) -> u16 {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().into();
    let request = agent.get(format!("{url}/stats")).header("x-api-key", key);
    request.call().unwrap().status().as_u16()
}

#[test]
fn notifies_the_service_manager_reloads_keys_and_stops_on_sigterm() {
    let home = TestHome::new();
    let manager = UnixDatagram::bind(home.path("manager")).unwrap();
    manager.set_read_timeout(Some(TIMEOUT)).unwrap();
    home.write("nearfield.toml", "api_key = \"the-first-key-for-testing\"\n");
    let mut server = home
        .command(&["serve", "--listen", "127.0.0.1:0"])
        .env("NOTIFY_SOCKET", home.path("manager"))
        .env("NEARFIELD_WRITE_KEY", "the-permanent-key-for-testing")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    assert_eq!(receive(&manager), "READY=1");
    let url = ServerAddress::read(&home.path("data")).unwrap().unwrap().url;
    assert_eq!(status(&url, "the-first-key-for-testing"), 200);
    assert_eq!(status(&url, "the-other-key-for-testing"), 401);

    let mut log = BufReader::new(server.stderr.take().unwrap()).lines().map_while(Result::ok);
    home.write("nearfield.toml", "[[keys]]\nkey = \"the-other-key-for-testing\"\nrole = \"read\"\n");
    signal(&server, "HUP");
    assert!(log.any(|line| line.contains("reloaded the keys")));
    // No colours, because standard error is not a terminal.
    assert!(log.next().is_some_and(|line| {
        line.contains(" WARN server::serve: 1 of the keys come from flags or the environment")
    }));
    assert_eq!(status(&url, "the-permanent-key-for-testing"), 200);
    assert_eq!(status(&url, "the-first-key-for-testing"), 401);
    assert_eq!(status(&url, "the-other-key-for-testing"), 200);
    // Invalid settings leave the keys unchanged.
    for (key, rest, reason) in [
        ("short", "", "16 to 1024"),
        ("a-third-key-for-testing", "collections = []\n", "an empty list"),
        ("the-permanent-key-for-testing", "", "the same API key"),
    ] {
        home.write("nearfield.toml", format!("[[keys]]\nkey = \"{key}\"\nrole = \"read\"\n{rest}"));
        signal(&server, "HUP");
        assert!(log.any(|line| line.contains("keys not reloaded") && line.contains(reason)), "{reason}");
        assert_eq!(status(&url, "the-other-key-for-testing"), 200);
    }

    signal(&server, "TERM");
    assert_eq!(receive(&manager), "STOPPING=1");
    assert!(server.wait().unwrap().success());
    let log: Vec<String> = log.collect();
    assert!(!log.iter().any(|line| line.contains("reloaded the")), "{log:?}");
    assert!(!log.iter().any(|line| line.contains("-key-for-testing")), "{log:?}");
}

/// Numeric settings with their minimum and maximum; for threads, a maximum that any machine can provide.
const NUMBERS: [(&str, u64, u64); 21] = [
    ("queue_max", 1, 1_000_000),
    ("queue_wait_ms", 1, 600_000),
    ("timeout_ms", 1, 600_000),
    ("cache_mib", 1, 1_048_576),
    ("query_cache_mib", 0, 65_536),
    ("disk_reserve_mib", 0, 16_777_216),
    ("memory_max_mib", 0, 16_777_216),
    ("tail_max", 1, 10_000_000),
    ("workers", 1, 64),
    ("index_threads", 1, 64),
    ("rate_limit", 0, 1_000_000),
    ("connections_max", 1, 65_536),
    ("connections_reserved", 0, 65_536),
    ("connections_per_address", 1, 65_536),
    ("response_memory_mib", 64, 1_048_576),
    ("response_timeout_ms", 1, 3_600_000),
    ("read_rate_min_kib", 1, 1_048_576),
    ("grace_s", 0, 3600),
    ("header_timeout_ms", 1, 600_000),
    ("idle_timeout_ms", 1, 600_000),
    ("body_timeout_ms", 1, 600_000),
];

#[test]
fn starts_and_stops_with_minimum_and_maximum_settings() {
    for is_max in [false, true] {
        let home = TestHome::new();
        let manager = UnixDatagram::bind(home.path("manager")).unwrap();
        manager.set_read_timeout(Some(TIMEOUT)).unwrap();
        let line =
            |(key, min, max): (&str, u64, u64)| format!("{key} = {}\n", if is_max { max } else { min });
        let file = home.write("nearfield.toml", NUMBERS.map(line).concat());
        let mut server = home
            .command(&["serve", "--listen", "127.0.0.1:0", "--config", &file])
            .env("NOTIFY_SOCKET", home.path("manager"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        assert_eq!(receive(&manager), "READY=1");
        signal(&server, "TERM");
        assert_eq!(receive(&manager), "STOPPING=1");
        assert!(server.wait().unwrap().success());
    }
}

#[test]
fn systemd_unit_runs_a_valid_command() {
    let unit =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/nearfield.service"))
            .unwrap();
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let mut arguments: Vec<&str> = start.split(' ').collect();
    // systemd looks for it in /usr/local/bin and /usr/bin.
    assert_eq!(arguments.remove(0), "nearfield");
    arguments.push("--help");
    TestHome::new().ok(&arguments);
    for line in [
        "Type=notify",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "NoNewPrivileges=yes",
        "StateDirectoryMode=0700",
    ] {
        assert!(unit.lines().any(|found| found == line), "{line}");
    }
}

/// Anyone may listen at the address of a server that was killed.
#[test]
fn commands_send_nothing_to_the_recorded_address() {
    let home = TestHome::new();
    home.write("nearfield.toml", "api_key = \"the-key-for-testing-it\"\n");
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    let impostor = FakeServer::start(move |_| {
        counted.fetch_add(1, Relaxed);
        Response::json(200, "{}")
    });
    let server = home.serve(&[]);
    let record = home.read("data/server.json").replace(&server.url, &impostor.url());
    home.write("data/server.json", &record);
    assert!(record.contains(&impostor.url()), "{record}");
    home.ok(&["stats"]);
    home.ok(&["backup", "saved"]);
    // Killed: its files remain. Another process holds the directory, such as a command or the next server.
    drop(server);
    assert!(home.path("data/server.sock").exists());
    assert_eq!(home.read("data/server.json"), record);
    let lock = File::options().write(true).open(home.path("data/lock")).unwrap();
    lock.lock().unwrap();
    for command in [&["stats"][..], &["get", "a"], &["backup", "saved-2"]] {
        home.fails(4, command, &["in use by process", "does not answer", "--url"]);
    }
    drop(lock);
    home.ok(&["stats"]);
    assert_eq!(requests.load(Relaxed), 0);
}

#[test]
fn healthcheck_asks_the_server_of_the_data_directory_or_of_the_configured_address() {
    let home = TestHome::new();
    let check = |listen: &str| {
        let mut command = home.command(&["healthcheck"]);
        let output = command.env("NEARFIELD_LISTEN", listen).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, error) = check("127.0.0.1:1");
    assert!(code == Some(4) && error.contains("http://127.0.0.1:1"), "{code:?} {error}");
    assert!(!home.path("data").join("nearfield.redb").exists(), "no store is opened");
    {
        let server = home.serve(&["--api-key", "the-first-key-for-testing"]);
        let is_ready = || check("127.0.0.1:1").0 == Some(0);
        let started = std::time::Instant::now();
        while !is_ready() {
            assert!(started.elapsed() < TIMEOUT);
        }
        // As in a container whose data directory is not shared.
        std::fs::remove_file(home.path("data/server.json")).unwrap();
        let address = server.url.trim_start_matches("http://");
        assert_eq!(check(address), (Some(0), String::new()));
        assert_eq!(home.ok(&["healthcheck", "--url", &server.url]), "ready\n");
    }
    assert_eq!(check("127.0.0.1:1").0, Some(4));
}
