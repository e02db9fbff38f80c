use std::{path::Path, time::Duration};

use service::{RedisStore, Store};

use super::*;

fn load(flags: &Flags, serve: &ServeFlags, environment: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    let environment = environment.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    Settings::from_sources(flags, Some(serve), environment)
}

fn home(dir: &Path) -> Flags {
    Flags { home: Some(dir.to_owned()), ..Flags::default() }
}

#[test]
fn defaults_listen_on_loopback_and_store_under_home() {
    let dir = tempfile::tempdir().unwrap();
    let settings = load(&home(dir.path()), &ServeFlags::default(), &[]).unwrap();
    assert_eq!(settings.server.listen.to_string(), "127.0.0.1:8000");
    assert_eq!(settings.server.service.data_dir, dir.path().join("data"));
    assert_eq!(settings.server.service.models_dir, dir.path().join("models"));
    assert!(settings.server.keys.keys.is_empty() && settings.warnings.is_empty());
}

#[test]
fn flags_override_environment_overrides_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join(FILE_NAME),
        "workers = 1\nqueue_max = 11\ntimeout_ms = 111\ndata_dir = \"store\"\napi_key = \"from-the-file-000\"\n",
    )
    .unwrap();
    let flags = home(dir.path()).with("workers", "2");
    let environment = [("NEARFIELD_WORKERS", "1"), ("NEARFIELD_QUEUE_MAX", "22"), ("NEARFIELD_LOG", "")];
    let settings = load(&flags, &ServeFlags::default(), &environment).unwrap();
    assert_eq!(settings.server.service.workers, 2);
    assert_eq!(settings.server.service.queue_max, 22);
    assert_eq!(settings.server.service.timeout, Duration::from_millis(111));
    assert_eq!(settings.server.service.data_dir, dir.path().join("store"), "relative to the file");
    assert_eq!(settings.client_key.unwrap().reveal(), "from-the-file-000");
    assert_eq!(settings.log, "info", "an empty variable is not set");
}

#[test]
fn errors_name_source_key_and_allowed_range() {
    let dir = tempfile::tempdir().unwrap();
    let message = |flags: &Flags, serve: &ServeFlags, environment: &[(&str, &str)]| {
        load(flags, serve, environment).unwrap_err().to_string()
    };
    let none = ServeFlags::default();
    assert_eq!(
        message(&home(dir.path()), &none, &[("NEARFIELD_WORKERS", "0")]),
        "NEARFIELD_WORKERS: workers must be a whole number from 1 to 1024, found \"0\""
    );
    assert_eq!(
        message(&home(dir.path()).with("cpu", "sse9"), &none, &[]),
        "--cpu: cpu must be scalar, avx2, avx512, found \"sse9\""
    );
    let serve = ServeFlags::default().with("listen", "8000");
    assert!(
        message(&home(dir.path()), &serve, &[])
            .starts_with("--listen: listen must be an IP address and a port")
    );
    let serve = ServeFlags::default().with("cors_origins", "*");
    assert!(message(&home(dir.path()), &serve, &[]).contains("without *"));
    std::fs::write(dir.path().join(FILE_NAME), "grace_s = -1\n").unwrap();
    let text = message(&home(dir.path()), &none, &[]);
    assert!(
        text.contains(FILE_NAME) && text.contains("grace_s must be a whole number from 0 to 3600"),
        "{text}"
    );
}

#[test]
fn unknown_file_keys_are_errors_and_unknown_variables_are_warnings() {
    let dir = tempfile::tempdir().unwrap();
    let settings = load(&home(dir.path()), &ServeFlags::default(), &[("NEARFIELD_WROKERS", "3")]).unwrap();
    assert!(settings.warnings[0].contains("NEARFIELD_WROKERS"));
    std::fs::write(dir.path().join(FILE_NAME), "wrokers = 3\n").unwrap();
    let text = load(&home(dir.path()), &ServeFlags::default(), &[]).unwrap_err().to_string();
    assert!(text.contains("wrokers") && text.contains("line 1"), "{text}");
}

#[test]
fn a_missing_file_is_an_error_only_if_named_explicitly() {
    let dir = tempfile::tempdir().unwrap();
    let flags = Flags { config: Some(dir.path().join("other.toml")), ..home(dir.path()) };
    assert!(matches!(load(&flags, &ServeFlags::default(), &[]), Err(ConfigError::Unreadable { .. })));
}

#[test]
fn api_keys_have_a_minimum_length_and_are_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let secret = "correct-horse-battery";
    let serve = ServeFlags::default().with("api_key", secret);
    let settings = load(&home(dir.path()), &serve, &[]).unwrap();
    assert!(!format!("{settings:?} {serve:?}").contains(secret));
    let serve = ServeFlags::default().with("api_key", "hunter2");
    let text = load(&home(dir.path()), &serve, &[]).unwrap_err().to_string();
    assert!(text.contains("16 to 1024") && !text.contains("hunter2"), "{text}");
}

#[test]
fn warns_about_more_than_two_workers_per_core() {
    let dir = tempfile::tempdir().unwrap();
    let flags = home(dir.path()).with("workers", "1024");
    let settings = load(&flags, &ServeFlags::default(), &[]).unwrap();
    assert_eq!(settings.server.service.workers, 1024);
    assert!(settings.warnings[0].contains("workers is 1024"), "{:?}", settings.warnings);
}

#[test]
fn a_key_that_is_listed_twice_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let key = "a-key-for-testing-twice";
    let digest: String =
        ApiKey::new(key).unwrap().digest().iter().map(|byte| format!("{byte:02x}")).collect();
    let by_digest = format!("[[keys]]\nsha256 = \"{digest}\"\nrole = \"write\"\n");
    let by_key = format!("[[keys]]\nkey = \"{key}\"\nrole = \"read\"\ncollections = [\"kb\"]\n");
    let setting = |name: &str| format!("{name} = \"{key}\"\n");
    for (file, flags, places) in [
        (
            format!("{}{}", setting("api_key"), setting("read_key")),
            &[][..],
            ["1 of api_key", "1 of read_key"],
        ),
        (format!("{}{by_digest}", setting("write_key")), &[], ["1 of write_key", "1 of keys"]),
        (format!("{by_key}{by_digest}"), &[], ["1 of keys", "2 of keys"]),
        (
            format!("read_key = [\"another-key-for-testing\", \"{key}\"]\n"),
            &["api_key"],
            ["1 of api_key", "2 of read_key"],
        ),
        (String::new(), &["api_key", "api_key"], ["1 of api_key", "2 of api_key"]),
    ] {
        std::fs::write(dir.path().join(FILE_NAME), &file).unwrap();
        let serve = flags.iter().fold(ServeFlags::default(), |serve, flag| serve.with(flag, key));
        let message = load(&home(dir.path()), &serve, &[]).unwrap_err().to_string();
        assert!(places.iter().all(|place| message.contains(place)), "{file}: {message}");
        assert!(!message.contains(key) && !message.contains(&digest), "{message}");
    }
    // A flag overrides the file's list of the same name.
    std::fs::write(dir.path().join(FILE_NAME), setting("api_key")).unwrap();
    let serve = ServeFlags::default().with("api_key", key);
    assert_eq!(load(&home(dir.path()), &serve, &[]).unwrap().server.keys.keys.len(), 1);
}

#[test]
fn non_loopback_addresses_require_an_api_key() {
    let dir = tempfile::tempdir().unwrap();
    let exposed = |listen: &str, keys: &[&str]| {
        let serve = ServeFlags::default().with("listen", listen);
        let serve = keys.iter().fold(serve, |serve, key| serve.with("api_key", key));
        load(&home(dir.path()), &serve, &[]).unwrap().server().err().map(|error| error.to_string())
    };
    for listen in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1"] {
        assert_eq!(exposed(listen, &[]), None, "{listen}");
    }
    for listen in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
        assert!(exposed(listen, &[]).unwrap().contains("--api-key"), "{listen}");
        assert_eq!(exposed(listen, &["a-key-of-sixteen-or-more"]), None, "{listen}");
    }
}

#[test]
fn store_is_a_directory_unless_a_redis_url_is_set() {
    let dir = tempfile::tempdir().unwrap();
    let none = ServeFlags::default();
    let store = |flags: &Flags, environment: &[(&str, &str)]| {
        load(flags, &none, environment).unwrap().server.service.store
    };
    assert_eq!(store(&home(dir.path()), &[]), Store::Directory);

    let url = "redis://ada:lovelace@redis.example.com:6380/0?protocol=resp2";
    let environment = [("NEARFIELD_STORE", url)];
    assert_eq!(store(&home(dir.path()), &environment), Store::Redis(RedisStore::new(url)));

    std::fs::write(dir.path().join(FILE_NAME), "redis_connections = 7\nredis_timeout_ms = 250\n").unwrap();
    let flags = home(dir.path()).with("redis_connections", "2");
    let expected =
        RedisStore { connections: 2, command_timeout: Duration::from_millis(250), ..RedisStore::new(url) };
    assert_eq!(store(&flags, &environment), Store::Redis(expected));

    std::fs::write(dir.path().join(FILE_NAME), "store = \"redis://localhost\"\n").unwrap();
    assert_eq!(store(&home(dir.path()), &[]), Store::Redis(RedisStore::new("redis://localhost")));
    let flags = home(dir.path()).with("store", "directory");
    assert_eq!(store(&flags, &environment), Store::Directory, "a flag takes it back");
}

#[test]
fn store_password_is_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let secret = "lovelace";
    let url = format!("redis://ada:{secret}@localhost");
    let flags = home(dir.path()).with("store", &url);
    let settings = load(&flags, &ServeFlags::default(), &[]).unwrap();
    let shown = format!("{flags:?} {settings:?} {:?}", settings.service());
    assert!(!shown.contains(secret) && !shown.contains("ada"), "{shown}");

    let error = |flags: &Flags, environment: &[(&str, &str)]| {
        let text = load(flags, &ServeFlags::default(), environment).unwrap_err().to_string();
        assert!(!text.contains(secret), "{text}");
        assert!(text.contains("store must be directory, redis://") && text.contains("rediss://"), "{text}");
        text
    };
    let postgres = format!("postgres://ada:{secret}@localhost");
    let text = error(&home(dir.path()).with("store", &postgres), &[]);
    assert!(text.starts_with("--store: ") && text.ends_with("found \"postgres://...\""), "{text}");
    let text = error(&home(dir.path()), &[("NEARFIELD_STORE", &format!("ada:{secret}@localhost"))]);
    assert!(text.starts_with("NEARFIELD_STORE: ") && text.contains("without a scheme"), "{text}");
    std::fs::write(dir.path().join(FILE_NAME), format!("workers = 1\nstore = \"{postgres}\"\n")).unwrap();
    assert!(error(&home(dir.path()), &[]).contains(FILE_NAME));
    std::fs::write(dir.path().join(FILE_NAME), format!("store = [\"{url}\"]\n")).unwrap();
    let text = load(&home(dir.path()), &ServeFlags::default(), &[]).unwrap_err().to_string();
    assert!(text.contains("line 1") && !text.contains(secret), "{text}");
}

#[test]
fn durability_applies_to_the_data_directory_and_reports_possible_loss() {
    let dir = tempfile::tempdir().unwrap();
    let with = |environment: &[(&str, &str)]| {
        let settings = load(&home(dir.path()), &ServeFlags::default(), environment).unwrap();
        (settings.service().durability_warning().unwrap_or_default(), settings.warnings)
    };
    for always in [&[][..], &[("NEARFIELD_DURABILITY", "always")]] {
        assert_eq!(with(always), (String::new(), vec![]));
    }
    for (durability, seconds) in [("everysec", "1 s"), ("none", "30 s")] {
        let (loss, warnings) = with(&[("NEARFIELD_DURABILITY", durability)]);
        assert!(loss.contains(durability) && loss.contains(&format!("last {seconds} are lost")), "{loss}");
        assert!(warnings.is_empty(), "{warnings:?}");
        let redis = ("NEARFIELD_STORE", "redis://localhost");
        let (loss, warnings) = with(&[("NEARFIELD_DURABILITY", durability), redis]);
        assert_eq!(loss, "", "Redis decides");
        assert!(
            warnings[0].contains(&format!("durability is {durability} and does nothing")),
            "{warnings:?}"
        );
    }
}

#[test]
fn redis_connections_and_timeout_have_limits() {
    let dir = tempfile::tempdir().unwrap();
    let error = |environment: &[(&str, &str)]| {
        load(&home(dir.path()), &ServeFlags::default(), environment).unwrap_err().to_string()
    };
    assert_eq!(
        error(&[("NEARFIELD_REDIS_CONNECTIONS", "0")]),
        "NEARFIELD_REDIS_CONNECTIONS: redis_connections must be a whole number from 1 to 1024, found \"0\""
    );
    assert_eq!(
        error(&[("NEARFIELD_REDIS_TIMEOUT_MS", "600001")]),
        "NEARFIELD_REDIS_TIMEOUT_MS: redis_timeout_ms must be a whole number from 1 to 600000, found \"600001\""
    );
}

#[test]
fn misplaced_api_keys_are_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(FILE_NAME);
    let secret = "top-secret\", expected-0123456789";
    let quoted = format!("{secret:?}");
    for text in [
        format!("keys = {quoted}"),
        format!("[[keys]]\nkey = [{quoted}]\nrole = \"read\""),
        format!("[[keys]]\nkey = \"a-key-for-testing\"\ncollections = {quoted}\nrole = \"read\""),
        format!("[[keys]]\nsha256 = {quoted}\nrole = \"read\""),
        format!("workers = {quoted}"),
        format!("log_json = {quoted}"),
        format!("api_key = [[{quoted}]]"),
    ] {
        std::fs::write(&file, &text).unwrap();
        let flags = Flags { home: Some(dir.path().to_owned()), ..Flags::default() };
        let error = Settings::from_sources(&flags, None, []).unwrap_err().to_string();
        assert!(!error.contains("top-secret") && !error.contains("0123456789"), "{text}: {error}");
        assert!(error.contains(FILE_NAME), "{error}");
    }
}
