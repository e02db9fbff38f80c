//! Commands over HTTPS with a server whose certificate no public authority has signed.
#![cfg(target_os = "linux")]

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::program::{ServeProcess, TestHome};

/// Starts a server with `cert.pem` and `key.pem` of this home directory; returns it with its port.
fn serve(home: &TestHome) -> (ServeProcess, u16) {
    let server = home.serve(&["--tls-cert", "cert.pem", "--tls-key", "key.pem"]);
    let port = server.url.rsplit(':').next().unwrap().parse().unwrap();
    (server, port)
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
const UNTRUSTED: [&str; 2] = ["invalid peer certificate", "--ca-cert FILE"];

#[test]
fn trusts_only_the_certificate_given_by_ca_cert() {
    let (home, client) = (TestHome::new(), TestHome::new());
    for is_ca in [false, true] {
        write_certificate(&home, "cert", "localhost", is_ca);
        write_certificate(&home, "other", "localhost", is_ca);
        let (_server, port) = serve(&home);
        let url = format!("https://localhost:{port}");
        let [cert, other] = ["cert.pem", "other.pem"].map(|name| home.path(name).display().to_string());

        let stats = ["stats", "--url", &url];
        client.fails(4, &stats, &UNTRUSTED);
        client.fails(4, &[&stats[..], &["--ca-cert", &other]].concat(), &UNTRUSTED);
        client.ok(&[&stats[..], &["--ca-cert", &cert]].concat());
        // A streamed response.
        let backup = ["backup", "--url", &url, "--ca-cert", &cert, "saved"];
        client.ok(&backup);

        let mut command = client.command(&stats);
        assert!(command.env("NEARFIELD_CA_CERT", &cert).status().unwrap().success());
        client.write("nearfield.toml", format!("ca_cert = {cert:?}\n"));
        client.ok(&stats);
        client.write("nearfield.toml", "");

        // The certificate is valid for its own names only.
        let ip = format!("https://127.0.0.1:{port}");
        client.fails(4, &["stats", "--url", &ip, "--ca-cert", &cert], &["not valid for name"]);
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

    let (_server, port) = serve(&home);
    let url = format!("https://localhost:{port}");
    TestHome::new().fails(4, &["stats", "--url", &url], &UNTRUSTED);
    home.ok(&["stats", "--url", &url, "--ca-cert", "authorities.pem"]);
}

/// Through its socket there, so that no certificate is involved.
#[test]
fn reaches_the_server_that_holds_the_data_directory_whatever_its_certificate() {
    let home = TestHome::new();
    // Not valid for 127.0.0.1, the address in the record.
    write_certificate(&home, "cert", "search.example", false);
    let (_server, port) = serve(&home);
    home.ok(&["stats"]);
    home.fails(4, &["stats", "--url", &format!("https://127.0.0.1:{port}")], &UNTRUSTED);
}

#[test]
fn rejects_a_file_without_certificates() {
    let home = TestHome::new();
    let assert_rejected = |file: &str, texts: &[&str]| {
        home.fails(2, &["stats", "--url", "https://localhost:1", "--ca-cert", file], texts);
    };
    assert_rejected("absent.pem", &["--ca-cert absent.pem", "PEM"]);
    home.write("empty.pem", "nothing\n");
    assert_rejected("empty.pem", &["--ca-cert empty.pem", "it contains no certificate"]);
    home.write("junk.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    assert_rejected("junk.pem", &["--ca-cert junk.pem", "certificate 1 cannot be used"]);
}
