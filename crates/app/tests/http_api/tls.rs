//! HTTPS: protocols on its port, and changed certificates.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, ServerName},
};
use server::serve::TlsFiles;
use server::serve::{ConnectionSettings, Tls};

use crate::{
    client::{Response, request},
    server::Server,
};

/// Writes a certificate for localhost and its key; returns the certificate.
fn write_certificate(dir: &Path) -> CertificateDer<'static> {
    let generated = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(dir.join("cert.pem"), generated.cert.pem()).unwrap();
    fs::write(dir.join("key.pem"), generated.signing_key.serialize_pem()).unwrap();
    generated.cert.der().clone()
}

/// Requests /healthz, trusting only this certificate.
fn get_health(server: &Server, trusted: &CertificateDer<'static>) -> std::io::Result<Response> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(connection, TcpStream::connect(server.address)?);
    stream.write_all(&request("GET", "/healthz", &[], b""))?;
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        // The server closes the connection without a TLS close notification.
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => Err(error),
        _ => Ok(Response::parse(&bytes).unwrap()),
    }
}

#[test]
fn accepts_only_https() {
    let dir = tempfile::tempdir().unwrap();
    let certificate = write_certificate(dir.path());
    let files = TlsFiles { cert: dir.path().join("cert.pem"), key: dir.path().join("key.pem") };
    let tls = Tls::new(files).unwrap();
    let server = Server::with(ConnectionSettings { tls: Some(tls.clone()), ..ConnectionSettings::default() });
    assert_eq!(get_health(&server, &certificate).unwrap().status, 200);

    let mut plain = server.connect();
    plain.write(request("GET", "/healthz", &[], b""));
    let response = plain.read_to_end();
    assert!(!response.starts_with(b"HTTP"), "{:?}", String::from_utf8_lossy(&response));

    // A new certificate without a restart.
    let other = write_certificate(dir.path());
    assert!(get_health(&server, &other).is_err(), "the new certificate is not loaded yet");
    tls.reload().unwrap();
    assert_eq!(get_health(&server, &other).unwrap().status, 200);
    assert!(get_health(&server, &certificate).is_err());

    // An unusable certificate leaves the previous one in use.
    for (name, bytes) in [("cert.pem", "no certificate"), ("key.pem", "no key")] {
        let valid = fs::read(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name), bytes).unwrap();
        let error = tls.reload().unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
        fs::write(dir.path().join(name), valid).unwrap();
        assert_eq!(get_health(&server, &other).unwrap().status, 200);
    }
    let mismatched = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(dir.path().join("key.pem"), mismatched.signing_key.serialize_pem()).unwrap();
    assert!(tls.reload().unwrap_err().to_string().contains("cannot be used"));
    assert_eq!(get_health(&server, &other).unwrap().status, 200);
}
