//! Commands that talk to a server over HTTPS, whose certificate no public authority has signed.
#![cfg(target_os = "linux")]

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use server::serve::ServerAddress;

use crate::program::Home;

/// A server that ends with the test.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    /// Serves with `cert.pem` and `key.pem` of this home, named on its command line alone.
    fn start(home: &Home) -> Server {
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

/// A self-signed certificate; `is_ca` as `openssl req -x509` makes them.
fn own(home: &Home, name: &str, host: &str, is_ca: bool) {
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

/// What every case below has to say where the certificate is not known.
const REFUSED: [&str; 2] = ["invalid peer certificate", "--ca-cert FILE"];

#[test]
fn a_named_certificate_is_trusted_and_no_other() {
    let (home, elsewhere) = (Home::new(), Home::new());
    for is_ca in [false, true] {
        own(&home, "cert", "localhost", is_ca);
        own(&home, "other", "localhost", is_ca);
        let server = Server::start(&home);
        let url = format!("https://localhost:{}", server.port);
        let [cert, other] = ["cert.pem", "other.pem"].map(|name| home.path(name).display().to_string());

        let ask = ["stats", "--url", &url];
        elsewhere.fails(4, &ask, &REFUSED);
        elsewhere.fails(4, &[&ask[..], &["--ca-cert", &other]].concat(), &REFUSED);
        elsewhere.ok(&[&ask[..], &["--ca-cert", &cert]].concat());
        // The body of an answer that is written as it comes.
        let backup = ["backup", "--url", &url, "--ca-cert", &cert, "saved"];
        elsewhere.ok(&backup);

        let mut command = elsewhere.command(&ask);
        assert!(command.env("NEARFIELD_CA_CERT", &cert).status().unwrap().success());
        elsewhere.write("nearfield.toml", format!("ca_cert = {cert:?}\n"));
        elsewhere.ok(&ask);
        elsewhere.write("nearfield.toml", "");

        // It speaks for the names in it alone.
        let ip = format!("https://127.0.0.1:{}", server.port);
        elsewhere.fails(4, &["stats", "--url", &ip, "--ca-cert", &cert], &["not valid for name"]);
    }
}

#[test]
fn what_a_named_authority_has_signed_is_trusted() {
    let home = Home::new();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let signed =
        CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    home.write("cert.pem", signed.pem());
    home.write("key.pem", key.serialize_pem());
    // Among others.
    own(&home, "authorities", "elsewhere.example", true);
    home.write("authorities.pem", home.read("authorities.pem") + &authority.pem());

    let server = Server::start(&home);
    let url = format!("https://localhost:{}", server.port);
    Home::new().fails(4, &["stats", "--url", &url], &REFUSED);
    home.ok(&["stats", "--url", &url, "--ca-cert", "authorities.pem"]);
}

#[test]
fn the_server_of_this_data_directory_is_known_by_its_certificate() {
    let home = Home::new();
    // Neither name is the one it is called by, 127.0.0.1.
    own(&home, "cert", "search.example", false);
    own(&home, "other", "search.example", false);
    let server = Server::start(&home);
    home.ok(&["stats"]);

    // Who only says that it were that server is refused.
    let told = home.read("data/server.json");
    assert!(told.contains("cert.pem"), "{told}");
    home.write("data/server.json", told.replace("cert.pem", "other.pem"));
    home.fails(4, &["stats"], &REFUSED);
    home.write("data/server.json", told.replace("cert.pem", "gone.pem"));
    home.fails(1, &["stats"], &["gone.pem", "certificate of the server that has the data directory"]);
    drop(server);
}

#[test]
fn a_file_without_certificates_is_refused_by_name() {
    let home = Home::new();
    let ask = |file: &str, words: &[&str]| {
        home.fails(2, &["stats", "--url", "https://localhost:1", "--ca-cert", file], words);
    };
    ask("absent.pem", &["--ca-cert absent.pem", "PEM"]);
    home.write("empty.pem", "nothing\n");
    ask("empty.pem", &["--ca-cert empty.pem", "no certificate is in it"]);
    home.write("junk.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    ask("junk.pem", &["--ca-cert junk.pem", "certificate 1 cannot be used"]);
}
