//! Whose word on who a server is counts: public authorities, and certificates the user or the server of
//! this machine names.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
    server::ParsedCertificate,
};

use crate::cli::exit::Usage;

/// What is trusted beside the public authorities.
#[derive(Clone, Debug, Default)]
pub(super) struct Trust {
    /// Authorities, or servers' own certificates.
    named: Vec<CertificateDer<'static>>,
    /// What the server of this machine shows, whatever names and dates stand in it: its data directory tells of it.
    here: Option<CertificateDer<'static>>,
}

impl Trust {
    /// Trusts what stands in a file of PEM certificates, too; `None` changes nothing.
    pub(super) fn in_file(path: Option<&Path>) -> Result<Trust, Usage> {
        let Some(path) = path else { return Ok(Trust::default()) };
        let wrong = |why: String| {
            Usage(format!(
                "--ca-cert {}: {why}: expected certificates in PEM, each from -----BEGIN CERTIFICATE----- on",
                path.display()
            ))
        };
        let named = read(path).map_err(|error| wrong(error.to_string()))?;
        if named.is_empty() {
            return Err(wrong("no certificate is in it".to_owned()));
        }
        for (nth, certificate) in named.iter().enumerate() {
            // Told now and with the file's name, not at the first connection.
            RootCertStore::empty()
                .add(certificate.clone())
                .map_err(|error| wrong(format!("certificate {} cannot be used ({error})", nth + 1)))?;
        }
        Ok(Trust { named, here: None })
    }

    /// Trusts a server that shows the first certificate of this file, too.
    pub(super) fn with_here(mut self, path: &Path) -> anyhow::Result<Trust> {
        let shown = read(path).with_context(|| {
            format!("reading {}, the certificate of the server that has the data directory", path.display())
        })?;
        self.here = shown.into_iter().next();
        Ok(self)
    }

    /// How connections are made.
    pub(super) fn config(self) -> ClientConfig {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        roots.add_parsable_certificates(self.named.iter().cloned());
        let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .expect("there are public authorities, and no lists of revoked certificates");
        ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has ciphers for TLS 1.2 and 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier { authorities, trust: self }))
            .with_no_client_auth()
    }
}

fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, rustls::pki_types::pem::Error> {
    CertificateDer::pem_file_iter(path)?.collect()
}

/// Whether a call failed because nobody who is trusted vouches for the server.
pub(super) fn is_refusal(error: &ureq::Error) -> bool {
    let rustls = match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()),
        _ => None,
    };
    use CertificateError::{BadSignature, Other, UnknownIssuer};
    matches!(rustls, Some(Error::InvalidCertificate(UnknownIssuer | BadSignature | Other(_))))
}

/// Asks authorities, but knows two certificates they would refuse.
#[derive(Debug)]
struct Verifier {
    authorities: Arc<WebPkiServerVerifier>,
    trust: Trust,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.trust.here.as_ref() == Some(shown) {
            return Ok(ServerCertVerified::assertion());
        }
        match self.authorities.verify_server_cert(shown, intermediates, name, ocsp_response, now) {
            // `openssl req -x509` marks what it makes as an authority's, which a server is not to show. Its dates
            // were checked before that.
            Err(Error::InvalidCertificate(CertificateError::Other(_)))
                if self.trust.named.contains(shown) =>
            {
                verify_server_name(&ParsedCertificate::try_from(shown)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls12_signature(message, shown, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls13_signature(message, shown, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}
