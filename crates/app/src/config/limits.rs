//! Every setting from every source, at its limits and beyond.

use std::{collections::BTreeSet, ffi::OsString};

use clap::{Args as _, Command, FromArgMatches as _};

use super::{table::SETTINGS, *};

/// How a value is written.
#[derive(Clone, Copy, PartialEq)]
enum ValueKind {
    Number,
    Boolean,
    Text,
    Path,
    List,
    /// An array of tables, which only a file can hold.
    Tables,
}

/// Values that a setting takes and rejects.
struct SettingCase {
    key: &'static str,
    kind: ValueKind,
    /// What is allowed, as in the message.
    allowed: String,
    /// Minimum and maximum, or two different values.
    good: [String; 2],
    /// Values beyond the limits or of another form.
    bad: Vec<String>,
    /// Other settings that the file needs.
    with: &'static str,
}

fn number(key: &'static str, least: u64, most: u64) -> SettingCase {
    let below = i128::from(least) - 1;
    let above = i128::from(most) + 1;
    let bad =
        [below.to_string(), above.to_string(), u128::MAX.to_string(), "1.5".to_owned(), "true".to_owned()];
    SettingCase {
        key,
        kind: ValueKind::Number,
        allowed: format!("a whole number from {least} to {most}"),
        good: [least.to_string(), most.to_string()],
        bad: bad.to_vec(),
        with: "",
    }
}

fn case(key: &'static str, kind: ValueKind, allowed: &str, good: [&str; 2], bad: &[&str]) -> SettingCase {
    let bad = bad.iter().map(|&text| text.to_owned()).collect();
    SettingCase { key, kind, allowed: allowed.to_owned(), good: good.map(str::to_owned), bad, with: "" }
}

fn boolean(key: &'static str) -> SettingCase {
    case(key, ValueKind::Boolean, "true or false", ["false", "true"], &["2", "-1", "1.5"])
}

fn path(key: &'static str, with: &'static str) -> SettingCase {
    SettingCase { with, ..case(key, ValueKind::Path, "a path", ["/a", "/b"], &[]) }
}

fn with_redis(case: SettingCase) -> SettingCase {
    SettingCase { with: "store = \"redis://localhost\"", ..case }
}

fn cases() -> Vec<SettingCase> {
    let compute = |key| case(key, ValueKind::Text, "int8, bf16, f32", ["f32", "int8"], &["f64", "int"]);
    let shortest = "k".repeat(16);
    let longest = "k".repeat(1024);
    let keys = |key| {
        let bad = ["k".repeat(15), "k".repeat(1025), "with a space inside".to_owned()];
        let bad = bad.each_ref().map(String::as_str);
        case(key, ValueKind::List, "16 to 1024 visible ASCII characters", [&shortest, &longest], &bad)
    };
    let key_table = |rest: &str| format!("{{key = \"{shortest}\", {rest}}}");
    vec![
        path("data_dir", ""),
        path("models_dir", ""),
        case(
            "store",
            ValueKind::Text,
            "directory, redis://[[USER]:PASSWORD@]HOST[:PORT]",
            ["directory", "redis://localhost"],
            &["redis://", "postgres://localhost", "redis://localhost/1", "localhost"],
        ),
        with_redis(number("redis_connections", 1, 1024)),
        with_redis(number("redis_timeout_ms", 1, 600_000)),
        with_redis(number("wait_replicas", 0, 100)),
        with_redis(boolean("read_from_replicas")),
        case("cpu", ValueKind::Text, "scalar, avx2, avx512", ["scalar", "avx512"], &["sse9", "avx"]),
        compute("query_compute"),
        compute("document_compute"),
        number("workers", 1, 1024),
        boolean("pin_workers"),
        number("index_threads", 1, 256),
        number("tail_max", 1, 10_000_000),
        number("cache_mib", 1, 1_048_576),
        number("query_cache_mib", 0, 65_536),
        number("memory_max_mib", 0, 16_777_216),
        number("disk_reserve_mib", 0, 16_777_216),
        case(
            "durability",
            ValueKind::Text,
            "always, everysec, none",
            ["always", "none"],
            &["no", "Always", "everysecond"],
        ),
        case(
            "listen",
            ValueKind::Text,
            "an IP address and a port",
            ["127.0.0.1:0", "[::1]:65535"],
            &["127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1", "8000", "example.com:80"],
        ),
        keys("api_key"),
        keys("write_key"),
        keys("read_key"),
        case(
            "keys",
            ValueKind::Tables,
            "",
            [&key_table("role = \"read\""), &key_table("role = \"write\", collections = [\"a\"]")],
            &[
                "{}",
                "{role = \"read\"}",
                "{key = \"short\", role = \"read\"}",
                "{sha256 = \"00\", role = \"read\"}",
                &key_table("role = \"root\""),
                &key_table("role = 1"),
                &key_table("role = \"read\", collections = \"a\""),
                &key_table("role = \"read\", collections = []"),
                &key_table("role = \"read\", collections = [\"/\"]"),
                &key_table("role = \"admin\", collections = [\"a\"]"),
                &key_table("role = \"read\", until = 2030"),
            ],
        ),
        number("rate_limit", 0, 1_000_000),
        case(
            "trusted_proxies",
            ValueKind::List,
            "networks such as 10.0.0.0/8",
            ["0.0.0.0/0", "ffff::/128"],
            &["10.0.0.0/33", "10.0.0.0/-1", "ffff::/129", "example.com"],
        ),
        path("ca_cert", ""),
        path("tls_cert", "tls_key = \"/k\""),
        path("tls_key", "tls_cert = \"/c\""),
        case(
            "cors_origins",
            ValueKind::List,
            "origins such as https://app.example.com",
            ["http://a", "https://app.example.com:65535"],
            &["*", "https://*.example.com", "ftp://a", "https://a/path", "https://a:65536", "null"],
        ),
        number("queue_max", 1, 1_000_000),
        number("queue_wait_ms", 1, 600_000),
        number("timeout_ms", 1, 600_000),
        number("connections_max", 1, 65_536),
        number("connections_reserved", 0, 65_536),
        number("connections_per_address", 1, 65_536),
        number("header_timeout_ms", 1, 600_000),
        number("idle_timeout_ms", 1, 600_000),
        number("body_timeout_ms", 1, 600_000),
        number("response_memory_mib", 64, 1_048_576),
        number("response_timeout_ms", 1, 3_600_000),
        number("read_rate_min_kib", 1, 1_048_576),
        number("grace_s", 0, 3600),
        case(
            "log",
            ValueKind::Text,
            "levels, alone or for a module",
            ["off", "trace"],
            &["nearfield=loud", "a=b=c"],
        ),
        boolean("log_json"),
    ]
}

impl SettingCase {
    /// A value in TOML syntax.
    fn toml(&self, value: &str) -> String {
        match self.kind {
            ValueKind::Number | ValueKind::Boolean => value.to_owned(),
            ValueKind::Text | ValueKind::Path => format!("{value:?}"),
            ValueKind::List => format!("[{value:?}]"),
            ValueKind::Tables => format!("[{value}]"),
        }
    }

    /// Values of other types, in TOML syntax.
    fn toml_of_other_types(&self) -> Vec<&'static str> {
        let all = ["\"four\"", "4", "1.5", "true", "2030-01-01", "[4]", "[[\"a\"]]", "{a = 1}"];
        let none: &[&str] = match self.kind {
            ValueKind::Number => &["4"],
            ValueKind::Boolean => &["true"],
            // The type is right, whatever the value.
            ValueKind::Text | ValueKind::Path => &["\"four\""],
            ValueKind::List | ValueKind::Tables => &[],
        };
        all.into_iter().filter(|value| !none.contains(value)).collect()
    }

    fn name(&self) -> String {
        format!("NEARFIELD_{}", self.key.to_uppercase())
    }

    fn flag(&self) -> String {
        match self.key {
            "trusted_proxies" => "--trusted-proxy".to_owned(),
            "cors_origins" => "--cors-origin".to_owned(),
            key => format!("--{}", key.replace('_', "-")),
        }
    }

    /// Asserts that the settings were rejected with the key, the source and what is allowed.
    fn assert_rejected(&self, loaded: Result<String, String>, from: &str, value: &str) {
        match loaded {
            Ok(shown) => panic!("{}: {value} from {from} is accepted: {shown}", self.key),
            Err(text) => {
                let part = if self.kind == ValueKind::Tables {
                    self.key.to_owned()
                } else {
                    format!("{} must be {}", self.key, self.allowed)
                };
                assert!(text.contains(&part), "{value}: {part:?} is missing in {text:?}");
                assert!(text.contains(from), "{value}: {from:?} is missing in {text:?}");
            }
        }
    }
}

/// A temporary home directory.
struct TestHome(tempfile::TempDir);

impl TestHome {
    fn new() -> TestHome {
        TestHome(tempfile::tempdir().unwrap())
    }

    /// All settings as text, or the error.
    fn load(&self, file: &str, environment: &[(&str, &str)], flags: &[&str]) -> Result<String, String> {
        std::fs::write(self.0.path().join(FILE_NAME), file).unwrap();
        let home = self.0.path().to_str().unwrap();
        let words = ["x", "--home", home].into_iter().chain(flags.iter().copied());
        let matches = command().try_get_matches_from(words).map_err(|error| error.to_string())?;
        let flags = Flags::from_arg_matches(&matches).unwrap();
        let serve = ServeFlags::from_arg_matches(&matches).unwrap();
        let environment = environment.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let settings =
            Settings::from_sources(&flags, Some(&serve), environment).map_err(|error| error.to_string())?;
        // The source of a key is the one difference that is expected.
        let mut settings = settings;
        settings.server.keys.permanent = 0;
        let digests: Vec<_> = settings.server.keys.keys.iter().map(|key| key.digest).collect();
        Ok(format!("{settings:?} {digests:?}"))
    }
}

fn command() -> Command {
    ServeFlags::augment_args(Flags::augment_args(Command::new("x")))
}

/// All flags of settings.
fn flags() -> BTreeSet<String> {
    let command = command();
    let long = command.get_arguments().map(|argument| format!("--{}", argument.get_long().unwrap()));
    long.filter(|flag| !["--home", "--config"].contains(&flag.as_str())).collect()
}

#[test]
fn every_setting_and_every_flag_has_a_test_case() {
    let all = cases();
    let keys: Vec<&str> = all.iter().map(|case| case.key).collect();
    assert_eq!(keys, SETTINGS.iter().map(|setting| setting.key).collect::<Vec<_>>());
    let known: BTreeSet<String> = all.iter().map(SettingCase::flag).collect();
    assert!(flags().is_subset(&known), "flags of no setting: {:?}", flags().difference(&known));
}

#[test]
fn allowed_values_have_the_same_effect_in_file_environment_and_flag() {
    let home = TestHome::new();
    for case in cases() {
        let accepted = case.good.each_ref().map(|value| {
            let line = format!("{} = {}\n{}\n", case.key, case.toml(value), case.with);
            let shown = home.load(&line, &[], &[]).unwrap_or_else(|error| panic!("{line}{error}"));
            if case.kind != ValueKind::Tables {
                let same = home.load(case.with, &[(&case.name(), value)], &[]);
                assert_eq!(same.as_deref(), Ok(shown.as_str()), "{}={value}", case.name());
            }
            if flags().contains(&case.flag()) && (case.kind != ValueKind::Boolean || value == "true") {
                let flag = if case.kind == ValueKind::Boolean {
                    case.flag()
                } else {
                    format!("{}={value}", case.flag())
                };
                let same = home.load(case.with, &[], &[&flag]);
                assert_eq!(same.as_deref(), Ok(shown.as_str()), "{flag}");
            }
            shown
        });
        assert_ne!(accepted[0], accepted[1], "{} has no effect", case.key);
    }
}

#[test]
fn invalid_values_are_rejected_with_key_source_and_range() {
    let home = TestHome::new();
    for case in cases() {
        let in_file = |value: &str| {
            let text = format!("\n{} = {value}\n{}\n", case.key, case.with);
            case.assert_rejected(home.load(&text, &[], &[]), &format!("{FILE_NAME}, line 2"), value);
        };
        case.bad.iter().for_each(|value| in_file(&case.toml(value)));
        case.toml_of_other_types().into_iter().for_each(in_file);
        if case.kind == ValueKind::Path {
            in_file("\"\"");
            continue; // Any other text may be a path, and none is no variable.
        }
        let words: Vec<&str> = case.bad.iter().map(String::as_str).chain(["four"]).collect();
        for value in words {
            case.assert_rejected(home.load(case.with, &[(&case.name(), value)], &[]), &case.name(), value);
            if flags().contains(&case.flag()) && case.kind != ValueKind::Boolean {
                let flag = format!("{}={value}", case.flag());
                case.assert_rejected(home.load(case.with, &[], &[&flag]), &case.flag(), value);
            }
        }
    }
}

#[cfg(unix)]
#[test]
fn non_unicode_variables_are_rejected_except_for_paths() {
    use std::os::unix::ffi::OsStringExt as _;
    let dir = tempfile::tempdir().unwrap();
    let flags = Flags { home: Some(dir.path().to_owned()), ..Flags::default() };
    for case in cases().into_iter().filter(|case| case.with.is_empty()) {
        let environment = [(case.name().into(), OsString::from_vec(vec![b'a', 0xff]))];
        let loaded = Settings::from_sources(&flags, None, environment);
        match case.kind {
            ValueKind::Path => assert!(loaded.is_ok(), "{}", case.key),
            _ => case.assert_rejected(
                loaded.map(|settings| format!("{settings:?}")).map_err(|error| error.to_string()),
                &case.name(),
                "text that is not Unicode",
            ),
        }
    }
}

#[test]
fn unknown_keys_and_flags_are_rejected_and_known_keys_listed() {
    let home = TestHome::new();
    let text = home.load("workers = 1\nwrokers = 3\n", &[], &[]).unwrap_err();
    assert!(text.contains("line 2") && text.contains("\"wrokers\""), "{text}");
    assert!(SETTINGS.iter().all(|setting| text.contains(setting.key)), "{text}");
    assert!(home.load("[server]\nworkers = 1\n", &[], &[]).unwrap_err().contains("\"server\""));
    assert!(home.load("workers = 1\nworkers = 2\n", &[], &[]).unwrap_err().contains("line 2"));
    assert!(home.load("", &[], &["--wrokers=3"]).unwrap_err().contains("--wrokers"));
}

#[test]
fn help_shows_the_variable_and_the_default_of_every_flag() {
    let home = TestHome::new();
    let defaults = home.load("", &[], &[]).unwrap();
    for case in cases().iter().filter(|case| flags().contains(&case.flag())) {
        let command = command();
        let argument = command
            .get_arguments()
            .find(|argument| format!("--{}", argument.get_long().unwrap()) == case.flag());
        let help = argument.unwrap().get_help().unwrap().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(help.contains(&format!("[env: {}]", case.name())), "{}: {help}", case.flag());
        if let Some((_, rest)) = help.split_once("[default: ") {
            let value = rest.split(']').next().unwrap();
            let shown = home.load("", &[], &[&format!("{}={value}", case.flag())]).unwrap();
            // The default is resolved by the service, for the processor.
            let shown = shown.replace("query_compute: Some(Int8)", "query_compute: None");
            assert_eq!(shown, defaults, "{}: the default is not {value}", case.flag());
        }
    }
}
