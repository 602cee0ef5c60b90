//! TLS to Redis: whom we trust, and who we say we are.
//!
//! The server's certificate is always checked: signed by an authority that we trust, and made out for the host of `REDIS_URL`. The
//! authorities are those of the system, or only those of `REDIS_CA_FILE`. Who skips the check has no TLS, so nothing
//! here can: an authority of one's own costs one file.
//!
//! Source: Redis "TLS"; RFC 8446, RFC 6125 (rustls checks both).

use std::{io, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::EndpointError;
use crate::config::{RedisTls, env};

/// TLS to one host.
#[derive(Clone)]
pub(super) struct Tls {
    connector: TlsConnector,
    host: ServerName<'static>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The rest holds the client's key.
        f.debug_struct("Tls")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the certificates.
    pub(super) fn new(settings: &RedisTls, host: &str) -> Result<Self, EndpointError> {
        let name = server_name(host)?;
        let roots = match &settings.ca_file {
            Some(path) => roots_of(path)?,
            None => roots_of_system()?,
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|err| EndpointError::new(err.to_string()))?
            .with_root_certificates(roots);
        let config = match (&settings.cert_file, &settings.key_file) {
            (Some(cert), Some(key)) => {
                let certs = certificates(env::REDIS_CERT_FILE, cert)?;
                let key = PrivateKeyDer::from_pem_file(key)
                    .map_err(|err| unreadable(env::REDIS_KEY_FILE, key, &err))?;
                builder.with_client_auth_cert(certs, key).map_err(|err| {
                    EndpointError::new(format!(
                        "{} and {} do not fit together: {err}",
                        env::REDIS_CERT_FILE,
                        env::REDIS_KEY_FILE
                    ))
                })?
            }
            _ => builder.with_no_client_auth(),
        };
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            host: name,
        })
    }

    /// Returns the same for another host.
    pub(super) fn at(&self, host: &str) -> Result<Self, EndpointError> {
        Ok(Self {
            connector: self.connector.clone(),
            host: server_name(host)?,
        })
    }

    /// Shakes hands over an open stream.
    pub(super) async fn over(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.connector.connect(self.host.clone(), stream).await
    }
}

fn server_name(host: &str) -> Result<ServerName<'static>, EndpointError> {
    ServerName::try_from(host.to_owned()).map_err(|_invalid| {
        EndpointError::new("the host must be a name or an IP address that a certificate can hold")
    })
}

fn unreadable(name: &str, path: &Path, err: &dyn std::fmt::Display) -> EndpointError {
    // The reader's texts quote nothing of a key.
    EndpointError::new(format!(
        "{name}={} cannot be read as PEM: {err}",
        path.display()
    ))
}

fn certificates(name: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, EndpointError> {
    let certs: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|err| unreadable(name, path, &err))?;
    if certs.is_empty() {
        return Err(unreadable(name, path, &"it holds no certificate"));
    }
    Ok(certs)
}

fn roots_of(path: &Path) -> Result<RootCertStore, EndpointError> {
    let mut roots = RootCertStore::empty();
    for cert in certificates(env::REDIS_CA_FILE, path)? {
        roots
            .add(cert)
            .map_err(|err| unreadable(env::REDIS_CA_FILE, path, &err))?;
    }
    Ok(roots)
}

fn roots_of_system() -> Result<RootCertStore, EndpointError> {
    let mut roots = RootCertStore::empty();
    // Some systems keep certificates that are broken; the others count.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(EndpointError::new(format!(
            "this system trusts no certificate authority: install its ca-certificates, or set {}",
            env::REDIS_CA_FILE
        )));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let made = rcgen::generate_simple_self_signed(["host".to_owned()]).unwrap();
        let other = rcgen::KeyPair::generate().unwrap();
        let cert = path("cert.pem", &made.cert.pem());
        let key = path("key.pem", &made.signing_key.serialize_pem());
        let settings = |ca: &Path, pair: Option<(&Path, &Path)>| RedisTls {
            ca_file: Some(ca.to_owned()),
            cert_file: pair.map(|(cert, _)| cert.to_owned()),
            key_file: pair.map(|(_, key)| key.to_owned()),
        };
        Tls::new(&settings(&cert, Some((&cert, &key))), "host").unwrap();
        let wrong_key = path("other.pem", &other.serialize_pem());
        for (settings, names) in [
            (settings(&dir.path().join("none"), None), "REDIS_CA_FILE"),
            (settings(&path("empty", ""), None), "REDIS_CA_FILE"),
            (settings(&cert, Some((&key, &key))), "REDIS_CERT_FILE"),
            (settings(&cert, Some((&cert, &cert))), "REDIS_KEY_FILE"),
            (settings(&cert, Some((&cert, &wrong_key))), "REDIS_KEY_FILE"),
        ] {
            let err = Tls::new(&settings, "host").unwrap_err();
            assert!(err.reason.contains(names), "{names}: {err}");
        }
    }
}
