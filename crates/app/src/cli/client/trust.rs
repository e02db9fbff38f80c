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

use crate::cli::error::UsageError;

/// What is trusted beside the public authorities.
#[derive(Clone, Debug, Default)]
pub(super) struct TrustedCertificates {
    /// Authorities, or servers' own certificates.
    extra: Vec<CertificateDer<'static>>,
    /// What the server of this machine shows, whatever names and dates stand in it: its data directory tells of it.
    local_server: Option<CertificateDer<'static>>,
}

impl TrustedCertificates {
    /// Trusts what stands in a file of PEM certificates, too; `None` changes nothing.
    pub(super) fn from_file(path: Option<&Path>) -> Result<TrustedCertificates, UsageError> {
        let Some(path) = path else { return Ok(TrustedCertificates::default()) };
        let invalid = |why: String| {
            UsageError(format!(
                "--ca-cert {}: {why}: expected certificates in PEM, each from -----BEGIN CERTIFICATE----- on",
                path.display()
            ))
        };
        let extra = read(path).map_err(|error| invalid(error.to_string()))?;
        if extra.is_empty() {
            return Err(invalid("no certificate is in it".to_owned()));
        }
        for (nth, certificate) in extra.iter().enumerate() {
            // Told now and with the file's name, not at the first connection.
            RootCertStore::empty()
                .add(certificate.clone())
                .map_err(|error| invalid(format!("certificate {} cannot be used ({error})", nth + 1)))?;
        }
        Ok(TrustedCertificates { extra, local_server: None })
    }

    /// Trusts a server that shows the first certificate of this file, too.
    pub(super) fn with_local_server(mut self, path: &Path) -> anyhow::Result<TrustedCertificates> {
        let shown = read(path).with_context(|| {
            format!("reading {}, the certificate of the server that has the data directory", path.display())
        })?;
        self.local_server = shown.into_iter().next();
        Ok(self)
    }

    /// How connections are made.
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

/// Whether a call failed because nobody who is trusted vouches for the server.
pub(super) fn is_untrusted_certificate(error: &ureq::Error) -> bool {
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
struct CertificateVerifier {
    authorities: Arc<WebPkiServerVerifier>,
    trust: TrustedCertificates,
}

impl ServerCertVerifier for CertificateVerifier {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.trust.local_server.as_ref() == Some(shown) {
            return Ok(ServerCertVerified::assertion());
        }
        match self.authorities.verify_server_cert(shown, intermediates, name, ocsp_response, now) {
            // `openssl req -x509` marks what it makes as an authority's, which a server is not to show. Its dates
            // were checked before that.
            Err(Error::InvalidCertificate(CertificateError::Other(_)))
                if self.trust.extra.contains(shown) =>
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
