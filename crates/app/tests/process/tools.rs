//! External tools that some tests need.

use std::{path::Path, process::Command};

use testing::requirement::Requirement;

use crate::server::Server;

/// The first of these programs that is installed, which running it with `argument`, such as `--version`, shows.
pub(crate) fn find_program(names: &[&'static str], argument: &str) -> Option<&'static str> {
    let is_installed =
        |name: &str| Command::new(name).arg(argument).output().is_ok_and(|output| output.status.success());
    Requirement::Tools.find(|| {
        let installed = names.iter().copied().find(|name| is_installed(name));
        installed.ok_or_else(|| format!("{} is not installed", names[0]))
    })
}

/// A ready server under `strace`, which writes the system calls selected by `options` to the file `trace` in `home`;
/// `None` if strace is not installed.
pub(crate) fn start_with_strace(home: &Path, options: &[&str], variables: &[(&str, &str)]) -> Option<Server> {
    let strace = find_program(&["strace"], "-V")?;
    let trace = home.join("trace");
    let command = [strace, "-f", "--seccomp-bpf", "-qq", "-o", trace.to_str().unwrap()];
    let mut server = Server::start_with(home, &[&command[..], options].concat(), variables);
    server.wait_until_ready();
    Some(server)
}
