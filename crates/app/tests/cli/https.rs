//! Commands over HTTPS with a server whose certificate no public authority has signed.
#![cfg(target_os = "linux")]

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use server::serve::ServerAddress;

use crate::program::TestHome;

/// A server that is killed on drop.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    /// Serves with `cert.pem` and `key.pem` of this home directory.
    fn start(home: &TestHome) -> Server {
        let mut process = home
            .command(&["serve", "--listen", "127.0.0.1:0", "--tls-cert", "cert.pem", "--tls-key", "key.pem"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(process.stderr.as_mut().unwrap());
        assert!(log.lines().map_while(Result::ok).any(|line| line.contains("serving")));
        let url = ServerAddress::read(&home.path("data")).unwrap().unwrap().url;
        Server { process, port: url.rsplit(':').next().unwrap().parse().unwrap() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Writes a self-signed certificate; with `is_ca`, one like those of `openssl req -x509`.
fn write_certificate(home: &TestHome, name: &str, host: &str, is_ca: bool) {
    let mut params = CertificateParams::new([host.to_owned()]).unwrap();
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    let key = KeyPair::generate().unwrap();
    home.write(&format!("{name}.pem"), params.self_signed(&key).unwrap().pem());
    if name == "cert" {
        home.write("key.pem", key.serialize_pem());
    }
}

/// What the error says about an untrusted certificate.
const REFUSED: [&str; 2] = ["invalid peer certificate", "--ca-cert FILE"];

#[test]
fn trusts_only_the_certificate_given_by_ca_cert() {
    let (home, elsewhere) = (TestHome::new(), TestHome::new());
    for is_ca in [false, true] {
        write_certificate(&home, "cert", "localhost", is_ca);
        write_certificate(&home, "other", "localhost", is_ca);
        let server = Server::start(&home);
        let url = format!("https://localhost:{}", server.port);
        let [cert, other] = ["cert.pem", "other.pem"].map(|name| home.path(name).display().to_string());

        let ask = ["stats", "--url", &url];
        elsewhere.fails(4, &ask, &REFUSED);
        elsewhere.fails(4, &[&ask[..], &["--ca-cert", &other]].concat(), &REFUSED);
        elsewhere.ok(&[&ask[..], &["--ca-cert", &cert]].concat());
        // A streamed response.
        let backup = ["backup", "--url", &url, "--ca-cert", &cert, "saved"];
        elsewhere.ok(&backup);

        let mut command = elsewhere.command(&ask);
        assert!(command.env("NEARFIELD_CA_CERT", &cert).status().unwrap().success());
        elsewhere.write("nearfield.toml", format!("ca_cert = {cert:?}\n"));
        elsewhere.ok(&ask);
        elsewhere.write("nearfield.toml", "");

        // The certificate is valid for its own names only.
        let ip = format!("https://127.0.0.1:{}", server.port);
        elsewhere.fails(4, &["stats", "--url", &ip, "--ca-cert", &cert], &["not valid for name"]);
    }
}

#[test]
fn trusts_certificates_signed_by_a_given_authority() {
    let home = TestHome::new();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let signed =
        CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    home.write("cert.pem", signed.pem());
    home.write("key.pem", key.serialize_pem());
    // One of several certificates in the file.
    write_certificate(&home, "authorities", "elsewhere.example", true);
    home.write("authorities.pem", home.read("authorities.pem") + &authority.pem());

    let server = Server::start(&home);
    let url = format!("https://localhost:{}", server.port);
    TestHome::new().fails(4, &["stats", "--url", &url], &REFUSED);
    home.ok(&["stats", "--url", &url, "--ca-cert", "authorities.pem"]);
}

#[test]
fn trusts_the_certificate_of_the_server_that_holds_the_data_directory() {
    let home = TestHome::new();
    // Neither certificate is valid for 127.0.0.1, the address used.
    write_certificate(&home, "cert", "search.example", false);
    write_certificate(&home, "other", "search.example", false);
    let server = Server::start(&home);
    home.ok(&["stats"]);

    // A server with another certificate is rejected.
    let server_file = home.read("data/server.json");
    assert!(server_file.contains("cert.pem"), "{server_file}");
    home.write("data/server.json", server_file.replace("cert.pem", "other.pem"));
    home.fails(4, &["stats"], &REFUSED);
    home.write("data/server.json", server_file.replace("cert.pem", "gone.pem"));
    home.fails(1, &["stats"], &["gone.pem", "certificate of the server that holds the data directory"]);
    drop(server);
}

#[test]
fn rejects_a_file_without_certificates() {
    let home = TestHome::new();
    let ask = |file: &str, words: &[&str]| {
        home.fails(2, &["stats", "--url", "https://localhost:1", "--ca-cert", file], words);
    };
    ask("absent.pem", &["--ca-cert absent.pem", "PEM"]);
    home.write("empty.pem", "nothing\n");
    ask("empty.pem", &["--ca-cert empty.pem", "it contains no certificate"]);
    home.write("junk.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    ask("junk.pem", &["--ca-cert junk.pem", "certificate 1 cannot be used"]);
}
