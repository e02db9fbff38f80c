//! The test servers: they start, create an index, and can be stopped, paused and
//! restarted.

use testing::redis_stack::{RedisOptions, RedisStack, Reply};

fn text(text: &str) -> Reply {
    Reply::Text(text.as_bytes().to_vec())
}

fn create_index(stack: &RedisStack) -> Reply {
    let schema = "FT.CREATE idx ON HASH PREFIX 1 article: SCHEMA title TEXT embedding VECTOR HNSW 12 TYPE FLOAT32 \
                  DIM 4 DISTANCE_METRIC COSINE M 16 EF_CONSTRUCTION 200 EF_RUNTIME 50";
    stack.command(&schema.split_whitespace().collect::<Vec<_>>())
}

#[test]
fn servers_are_independent_and_have_the_search_module() {
    let (Some(one), Some(two)) = (RedisStack::plain(), RedisStack::plain()) else { return };
    assert_ne!(one.port(), two.port());
    assert_eq!(create_index(&one), text("OK"));
    assert_eq!(one.command(&["FT._LIST"]), Reply::Array(vec![text("idx")]));
    assert_eq!(two.command(&["FT._LIST"]), Reply::Array(vec![]));
}

#[test]
fn a_killed_server_restarts_on_its_port_empty_or_with_its_data() {
    for append_only in [false, true] {
        let Some(mut stack) = RedisStack::start(RedisOptions { append_only, ..RedisOptions::default() })
        else {
            return;
        };
        let (url, pid) = (stack.url(), stack.pid());
        assert_eq!(stack.command(&["SET", "word", "kept"]), text("OK"));
        stack.kill();
        assert!(std::net::TcpStream::connect(("127.0.0.1", stack.port())).is_err());
        stack.restart();
        assert_eq!(stack.url(), url);
        assert_ne!(stack.pid(), pid);
        let expected = if append_only { text("kept") } else { Reply::Nil };
        assert_eq!(stack.command(&["GET", "word"]), expected, "append_only {append_only}");
    }
}

#[test]
fn a_paused_server_accepts_connections_and_replies_when_resumed() {
    let Some(stack) = RedisStack::plain() else { return };
    stack.pause();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", stack.pid())).unwrap();
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    assert_eq!(state, Some('T'), "{stat}");
    let reply = std::thread::scope(|scope| {
        let call = scope.spawn(|| stack.command(&["ECHO", "hello"]));
        stack.resume();
        call.join().unwrap()
    });
    assert_eq!(reply, text("hello"));
}

#[test]
fn servers_require_user_and_password() {
    let options = RedisOptions { password: Some("sesame"), ..RedisOptions::default() };
    let Some(stack) = RedisStack::start(options) else { return };
    assert!(stack.url().starts_with("redis://:sesame@127.0.0.1:"));
    assert_eq!(stack.command(&["ACL", "WHOAMI"]), text("default"));

    let Some(stack) =
        RedisStack::start(RedisOptions { user: Some(("ada", "lovelace")), ..RedisOptions::default() })
    else {
        return;
    };
    assert!(stack.url().starts_with("redis://ada:lovelace@127.0.0.1:"));
    assert_eq!(stack.command(&["ACL", "WHOAMI"]), text("ada"));
}

#[test]
fn a_server_with_tls_listens_on_a_tls_port() {
    let Some(stack) = RedisStack::start(RedisOptions { tls: true, ..RedisOptions::default() }) else {
        return;
    };
    assert!(stack.url().starts_with("rediss://127.0.0.1:"), "{}", stack.url());
    let certificate = std::fs::read_to_string(stack.certificate()).unwrap();
    assert!(certificate.starts_with("-----BEGIN CERTIFICATE-----"), "{certificate}");
    let port = stack.url().rsplit([':', '/']).nth(1).unwrap().to_owned();
    let tls_port = stack.command(&["CONFIG", "GET", "tls-port"]);
    assert_eq!(tls_port, Reply::Array(vec![text("tls-port"), text(&port)]));
}
