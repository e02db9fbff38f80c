//! Which certificates are trusted: those of public authorities and those given by the user.

use std::{path::Path, sync::Arc};

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

use crate::cli::error::UsageError;

/// What is trusted in addition to public authorities.
#[derive(Clone, Debug, Default)]
pub(super) struct TrustedCertificates {
    /// Certificates of authorities, or of servers themselves.
    extra: Vec<CertificateDer<'static>>,
}

impl TrustedCertificates {
    /// Trusts the certificates of a PEM file. `None` adds nothing.
    pub(super) fn from_file(path: Option<&Path>) -> Result<TrustedCertificates, UsageError> {
        let Some(path) = path else { return Ok(TrustedCertificates::default()) };
        let invalid = |why: String| {
            UsageError(format!(
                "--ca-cert {}: {why}; expected PEM certificates, each starting with -----BEGIN CERTIFICATE-----",
                path.display()
            ))
        };
        let extra = read(path).map_err(|error| invalid(error.to_string()))?;
        if extra.is_empty() {
            return Err(invalid("it contains no certificate".to_owned()));
        }
        for (nth, certificate) in extra.iter().enumerate() {
            // Report it now, with the file's name, not at the first connection.
            RootCertStore::empty()
                .add(certificate.clone())
                .map_err(|error| invalid(format!("certificate {} cannot be used ({error})", nth + 1)))?;
        }
        Ok(TrustedCertificates { extra })
    }

    /// The TLS configuration of connections.
    pub(super) fn config(self) -> ClientConfig {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        roots.add_parsable_certificates(self.extra.iter().cloned());
        let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .expect("there are public authorities, and no lists of revoked certificates");
        ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has ciphers for TLS 1.2 and 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(CertificateVerifier { authorities, trust: self }))
            .with_no_client_auth()
    }
}

fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, rustls::pki_types::pem::Error> {
    CertificateDer::pem_file_iter(path)?.collect()
}

/// Whether a request failed because the server's certificate is not trusted.
pub(super) fn is_untrusted_certificate(error: &ureq::Error) -> bool {
    let rustls = match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()),
        _ => None,
    };
    use CertificateError::{BadSignature, Other, UnknownIssuer};
    matches!(rustls, Some(Error::InvalidCertificate(UnknownIssuer | BadSignature | Other(_))))
}

/// Verifies like `WebPkiServerVerifier`, but also accepts the added certificates themselves.
#[derive(Debug)]
struct CertificateVerifier {
    authorities: Arc<WebPkiServerVerifier>,
    trust: TrustedCertificates,
}

impl ServerCertVerifier for CertificateVerifier {
    fn verify_server_cert(
        &self,
        presented: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.authorities.verify_server_cert(presented, intermediates, name, ocsp_response, now) {
            // `openssl req -x509` marks its certificates as an authority's, which webpki rejects for a server. It has
            // checked the dates before that.
            Err(Error::InvalidCertificate(CertificateError::Other(_)))
                if self.trust.extra.contains(presented) =>
            {
                verify_server_name(&ParsedCertificate::try_from(presented)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        presented: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls12_signature(message, presented, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        presented: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls13_signature(message, presented, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}
