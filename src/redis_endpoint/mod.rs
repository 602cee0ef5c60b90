//! Where Redis is, and how a stream to it is opened: TCP, TLS, a Unix socket.
//!
//! The bridge and the accounts keep connections of their own, but both find Redis here, so that one address means the same
//! to both. Knows nothing of what is said on the stream; the login is handed to the client, which says it.
//!
//! | address | |
//! | --- | --- |
//! | `redis://[user:password@]host[:port][/db]` | TCP |
//! | `rediss://…`, the same | TLS; see [`tls`] |
//! | `unix:///path[?db=&user=&pass=]` | a Unix socket |
//!
//! `valkey://`, `valkeys://` and `valkey+unix://` mean the same. Source: the IANA registrations of `redis` and `rediss`; redis-rs.

pub mod fault;
pub mod pointer;
pub mod tls;

use std::{io, path::PathBuf};

use redis::{ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

use crate::config::RedisConfig;
use tls::Tls;

/// Why an address cannot be used. Its text never holds a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct EndpointError {
    /// What is wrong, and what to do.
    pub reason: String,
}

impl EndpointError {
    fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
        }
    }
}

/// Why no stream can be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The name is unknown, or nobody listens there.
    #[error("{0}")]
    Connect(io::Error),
    /// Somebody listens, but TLS could not be agreed upon, or the certificate is not to be trusted.
    #[error("TLS: {0}")]
    Tls(io::Error),
}

/// What all kinds of streams can do.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// One Redis.
#[derive(Clone, Debug)]
pub struct Endpoint {
    place: Place,
    login: RedisConnectionInfo,
}

#[derive(Clone, Debug)]
enum Place {
    Tcp {
        host: String,
        port: u16,
        tls: Option<Tls>,
    },
    Unix(PathBuf),
}

impl Endpoint {
    /// Returns the Redis of the settings. Reads certificates, if it needs any; connects to nothing.
    ///
    /// # Errors
    /// The address has no meaning, or a certificate cannot be used.
    pub fn new(config: &RedisConfig) -> Result<Self, EndpointError> {
        let (url, is_tls) = without_tls(config.url.expose())?;
        let info = url
            .into_connection_info()
            .map_err(|err| EndpointError::new(err.category()))?;
        let place = match info.addr() {
            ConnectionAddr::Tcp(host, port) => Place::Tcp {
                host: host.clone(),
                port: *port,
                tls: is_tls.then(|| Tls::new(&config.tls, host)).transpose()?,
            },
            ConnectionAddr::Unix(path) => Place::Unix(path.clone()),
            _ => return Err(EndpointError::new("unknown kind of address")),
        };
        // CLIENT SETINFO is one more right that an ACL would have to grant.
        let login = info
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP2)
            .set_skip_set_lib_name();
        Ok(Self { place, login })
    }

    /// Returns another node of the same cluster: the same login and certificates at another address.
    ///
    /// # Errors
    /// This is no address of a cluster's node, or that one is none.
    pub fn at(&self, host: &str, port: u16) -> Result<Self, EndpointError> {
        let Place::Tcp { tls, .. } = &self.place else {
            return Err(EndpointError::new(
                "a Redis Cluster needs redis://host:port or rediss://host:port",
            ));
        };
        Ok(Self {
            place: Place::Tcp {
                host: host.to_owned(),
                port,
                tls: tls.as_ref().map(|tls| tls.at(host)).transpose()?,
            },
            login: self.login.clone(),
        })
    }

    /// Returns its host and port, if it has them.
    pub fn host_and_port(&self) -> Option<(&str, u16)> {
        match &self.place {
            Place::Tcp { host, port, .. } => Some((host, *port)),
            Place::Unix(_) => None,
        }
    }

    /// Returns where it is, for people: without user or password.
    pub fn place(&self) -> String {
        match &self.place {
            Place::Tcp { host, port, tls } => {
                let tls = if tls.is_some() { " (TLS)" } else { "" };
                format!("{host}:{port}{tls}")
            }
            Place::Unix(path) => path.display().to_string(),
        }
    }

    /// Returns what is to be said first on every stream: user, password, database.
    pub fn login(&self) -> &RedisConnectionInfo {
        &self.login
    }

    /// Opens a stream. Sets no limit to the time that it takes.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(&self) -> Result<Box<dyn Stream>, OpenError> {
        match &self.place {
            Place::Tcp { host, port, tls } => {
                let stream = TcpStream::connect((host.as_str(), *port))
                    .await
                    .map_err(OpenError::Connect)?;
                stream.set_nodelay(true).map_err(OpenError::Connect)?;
                match tls {
                    None => Ok(Box::new(stream)),
                    Some(tls) => Ok(Box::new(tls.over(stream).await.map_err(OpenError::Tls)?)),
                }
            }
            Place::Unix(path) => Ok(Box::new(
                UnixStream::connect(path)
                    .await
                    .map_err(OpenError::Connect)?,
            )),
        }
    }
}

/// Returns the address with its TLS taken away, since the client's own TLS is not built in, and whether it had any.
fn without_tls(text: &str) -> Result<(url::Url, bool), EndpointError> {
    let mut plain = text.to_owned();
    let mut is_tls = false;
    for (with, without) in [("rediss://", "redis://"), ("valkeys://", "valkey://")] {
        if let Some(rest) = text.strip_prefix(with) {
            plain = format!("{without}{rest}");
            is_tls = true;
        }
    }
    let url = url::Url::parse(&plain).map_err(|err| EndpointError::new(err.to_string()))?;
    if url.fragment().is_some() {
        return Err(EndpointError::new(
            "nothing may stand behind a #; certificates are always checked, and REDIS_CA_FILE names an authority of your own",
        ));
    }
    Ok((url, is_tls))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{RedisTls, Secret};

    fn endpoint(url: &str) -> Result<Endpoint, EndpointError> {
        Endpoint::new(&RedisConfig {
            url: Secret::new(url),
            prefix: "p".to_owned(),
            adapter: Default::default(),
            tls: RedisTls::default(),
        })
    }

    #[test]
    fn an_address_says_where_redis_is_and_who_we_are() {
        for (url, place, user, db) in [
            ("redis://host", "host:6379", None, 0),
            ("redis://u:p%40@host:1/2", "host:1", Some("u"), 2),
            ("valkey://[::1]:1", "::1:1", None, 0),
            (
                "unix:///run/r.sock?db=3&user=u&pass=p",
                "/run/r.sock",
                Some("u"),
                3,
            ),
        ] {
            let endpoint = endpoint(url).unwrap();
            assert_eq!(endpoint.place(), place, "{url}");
            assert_eq!(endpoint.login().username(), user, "{url}");
            assert_eq!(endpoint.login().db(), db, "{url}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_without_showing_its_password() {
        for url in [
            "http://u:hunter2@host",
            "redis://u:hunter2@host/db",
            "redis://u:hunter2@host:99999",
            "rediss://u:hunter2@host#insecure",
            "hunter2",
        ] {
            let err = endpoint(url).unwrap_err();
            assert!(!format!("{err} {err:?}").contains("hunter2"), "{err:?}");
        }
    }
}
