//! Diagnostics of a Redis server: LATENCY DOCTOR, SLOWLOG and INFO.

use redis::{Cmd, Value};

use super::{Error, node::Node, reply};

/// Maximum number of slow commands reported.
const SLOW_COMMANDS_MAX: usize = 3;
/// Maximum length of a server's text that is passed on, in characters.
const CHARS_MAX: usize = 600;

/// One sentence per finding, at least one; also if the server does not reply.
pub(super) async fn diagnose(node: &Node) -> Vec<String> {
    let address = node.address().to_string();
    let findings = match findings(node).await {
        Ok(findings) => findings,
        Err(error) => vec![format!("no diagnosis: {error}")],
    };
    findings.into_iter().map(|sentence| format!("Redis {address}: {sentence}")).collect()
}

async fn findings(node: &Node) -> Result<Vec<String>, Error> {
    let mut findings = vec![format!(
        "LATENCY DOCTOR says: {}",
        sanitize(&reply::text(
            send_or_error_text(node, &command(&["LATENCY", "DOCTOR"])).await?,
            "LATENCY DOCTOR"
        )?)
    )];
    let slow =
        send_or_error_text(node, &command(&["SLOWLOG", "GET", &SLOW_COMMANDS_MAX.to_string()])).await?;
    findings.extend(slow_commands(slow));
    let info = reply::text(send_or_error_text(node, &command(&["INFO", "everything"])).await?, "INFO")?;
    findings.extend(info_findings(&info));
    Ok(findings)
}

fn command(words: &[&str]) -> Cmd {
    let mut command = redis::cmd(words[0]);
    words[1..].iter().for_each(|word| {
        command.arg(*word);
    });
    command
}

/// The reply; an error reply is returned as text, since a user may lack the permission.
async fn send_or_error_text(node: &Node, command: &Cmd) -> Result<Value, Error> {
    Ok(match node.connections.send(command).await? {
        Value::ServerError(error) => Value::SimpleString(format!("({error})")),
        value => value,
    })
}

/// The text as one line of bounded length without control characters.
pub(super) fn sanitize(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().filter(|character| !character.is_control()).take(CHARS_MAX).collect()
}

/// The slowest commands in the reply to SLOWLOG GET, without their arguments, which may be
/// confidential.
pub(super) fn slow_commands(reply: Value) -> Vec<String> {
    let entries = reply::items(reply, "SLOWLOG GET").unwrap_or_default();
    let slow = entries.into_iter().take(SLOW_COMMANDS_MAX).filter_map(|entry| {
        let mut parts = reply::items(entry, "SLOWLOG GET").ok()?.into_iter().skip(2);
        let us = reply::integer(parts.next()?, "SLOWLOG GET").ok()?;
        let words = reply::items(parts.next()?, "SLOWLOG GET").ok()?;
        let name = reply::text(words.into_iter().next()?, "SLOWLOG GET").ok()?;
        Some(format!("a slow command: {} took {:.1} ms (SLOWLOG)", sanitize(&name), us as f64 / 1e3))
    });
    slow.collect()
}

/// Unusual values in the reply to INFO.
pub(super) fn info_findings(info: &str) -> Vec<String> {
    let value = |name: &str| {
        info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim).map(sanitize)
    };
    let number = |name: &str| value(name).and_then(|text| text.parse::<f64>().ok());
    let mut findings = Vec::new();
    if let (Some(used), Some(max)) = (number("used_memory"), number("maxmemory"))
        && max > 0.0
        && used > 0.9 * max
    {
        let percent = (used / max * 100.0).round();
        findings.push(format!(
            "{percent} % of its maxmemory is used: it will soon reject writes or evict documents"
        ));
    }
    if let Some(policy) = value("maxmemory_policy").filter(|policy| policy != "noeviction") {
        findings.push(format!(
            "its maxmemory-policy is {policy}: documents may be evicted; set it to noeviction"
        ));
    }
    for (name, sentence) in [
        ("evicted_keys", "keys were evicted: documents may be lost"),
        ("rejected_connections", "connections were rejected: raise its maxclients"),
        ("blocked_clients", "clients are blocked"),
    ] {
        if let Some(count) = number(name).filter(|count| *count > 0.0) {
            findings.push(format!("{count} {sentence}"));
        }
    }
    if let Some(ratio) = number("mem_fragmentation_ratio").filter(|ratio| *ratio > 1.5)
        && number("used_memory").is_some_and(|used| used > 100e6)
    {
        findings
            .push(format!("it holds {ratio} times the memory it uses (fragmentation): enable activedefrag"));
    }
    if value("loading").as_deref() == Some("1") {
        findings.push("it is loading its data from disk".to_owned());
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_unusual_values_of_info_and_nothing_else() {
        assert_eq!(
            info_findings(
                "used_memory:100\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\nevicted_keys:0\r\n"
            ),
            [] as [&str; 0]
        );
        let findings = info_findings(
            "used_memory:950000000\r\nmaxmemory:1000000000\r\nmaxmemory_policy:allkeys-lru\r\nevicted_keys:7\r\n\
             mem_fragmentation_ratio:2.5\r\nloading:1\r\nrejected_connections:1\r\nblocked_clients:2\r\n",
        );
        assert_eq!(findings.len(), 7, "{findings:?}");
        assert!(findings[0].starts_with("95 %") && findings[1].contains("allkeys-lru"), "{findings:?}");
    }

    #[test]
    fn reports_slow_commands_without_their_arguments() {
        let word = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let entry = |us| {
            let words = Value::Array(vec![word("FT.SEARCH"), word("a secret")]);
            Value::Array(vec![
                Value::Int(1),
                Value::Int(2),
                Value::Int(us),
                words,
                word("127.0.0.1:1"),
                word(""),
            ])
        };
        let findings = slow_commands(Value::Array((0..9).map(|_| entry(12_340)).collect()));
        assert_eq!(findings, ["a slow command: FT.SEARCH took 12.3 ms (SLOWLOG)"; 3]);
        for nonsense in [
            Value::Nil,
            Value::Int(1),
            Value::Array(vec![Value::Int(1)]),
            Value::Array(vec![Value::Array(vec![])]),
        ] {
            assert_eq!(slow_commands(nonsense), [] as [&str; 0]);
        }
    }

    #[test]
    fn limits_a_servers_text_to_one_short_line() {
        assert_eq!(sanitize(" Dave, I\r\n\thave \u{7}bad news "), "Dave, I have bad news");
        assert_eq!(sanitize(&"x".repeat(10_000)).len(), CHARS_MAX);
    }
}
