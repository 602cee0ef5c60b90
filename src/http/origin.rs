//! Which browser origins may use this hub.
//!
//! Pure policy: knows header values, not requests. `http::cors` puts it in front of the HTTP routes and
//! `http::upgrade` in front of WebSockets, which no CORS rule of a browser protects.
//!
//! Rules: no `Origin` header (not a browser) is allowed; the hub's own origin (the authority in `Origin` is the one
//! in `Host`) is allowed; an origin listed in `FRONTEND_URL` is allowed, by exact comparison, never by suffix;
//! `*` in the list allows every origin, without credentials. All others, `null` included, are refused.

use std::str::FromStr;

use url::{Origin, Url};

/// Why an entry of `FRONTEND_URL` is not an origin.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OriginFault {
    /// No absolute address with a host.
    #[error(
        "{entry:?} is not an origin; write it like https://app.example.com or http://localhost:5173"
    )]
    NotAnOrigin {
        /// What stood there.
        entry: String,
    },
    /// An origin is scheme, host and port alone.
    #[error("{entry:?} must end after the host and port; write {origin}")]
    HasPath {
        /// What stood there.
        entry: String,
        /// The part of it that is the origin.
        origin: String,
    },
}

/// The origins of `FRONTEND_URL`, in the form in which browsers send them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedOrigins {
    any: bool,
    listed: Vec<String>,
}

/// What the policy says of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The request has no `Origin`: no browser page sent it, and no CORS header is due.
    NoOrigin,
    /// The hub's own page, or a listed one. The origin is to be echoed.
    Allowed,
    /// Everyone is allowed by `*`.
    AllowedToAny,
    /// Anyone else.
    Refused,
}

impl Verdict {
    /// Returns whether the request may go on.
    pub fn is_allowed(self) -> bool {
        match self {
            Self::NoOrigin | Self::Allowed | Self::AllowedToAny => true,
            Self::Refused => false,
        }
    }
}

impl FromStr for AllowedOrigins {
    type Err = OriginFault;

    fn from_str(text: &str) -> Result<Self, OriginFault> {
        let mut origins = Self::default();
        for entry in text
            .split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
        {
            if entry == "*" {
                origins.any = true;
                continue;
            }
            let fault = || OriginFault::NotAnOrigin {
                entry: entry.to_owned(),
            };
            let url = Url::parse(entry)
                .ok()
                .filter(Url::has_host)
                .ok_or_else(fault)?;
            let origin = match url.origin() {
                origin @ Origin::Tuple(..) => origin.ascii_serialization(),
                Origin::Opaque(_) => return Err(fault()),
            };
            let bare = url.path() == "/"
                && url.query().is_none()
                && url.fragment().is_none()
                && url.username().is_empty()
                && url.password().is_none();
            if !bare {
                return Err(OriginFault::HasPath {
                    entry: entry.to_owned(),
                    origin,
                });
            }
            origins.listed.push(origin);
        }
        Ok(origins)
    }
}

impl AllowedOrigins {
    /// Judges a request by its `Origin` and `Host` headers.
    pub fn judge(&self, origin: Option<&[u8]>, host: Option<&[u8]>) -> Verdict {
        let Some(origin) = origin else {
            return Verdict::NoOrigin;
        };
        let Ok(origin) = std::str::from_utf8(origin) else {
            return Verdict::Refused;
        };
        if self
            .listed
            .iter()
            .any(|listed| listed.eq_ignore_ascii_case(origin))
            || is_own(origin, host)
        {
            Verdict::Allowed
        } else if self.any {
            Verdict::AllowedToAny
        } else {
            Verdict::Refused
        }
    }
}

/// Bytes of the longest origin that is compared with a host: of a scheme, the longest name that DNS knows, and a port.
const MAX_ORIGIN_BYTES: usize = 300;

/// Returns whether `origin` names the authority that the client itself addressed.
///
/// Browsers write names in ASCII. What is none, or longer than any, is no origin, and not parsed: that takes time that grows with the
/// square of the length. Ports are compared after the scheme's default is filled in, since neither header writes it.
fn is_own(origin: &str, host: Option<&[u8]>) -> bool {
    let Some(host) = host.and_then(|host| std::str::from_utf8(host).ok()) else {
        return false;
    };
    let may_be_one = |text: &str| text.len() <= MAX_ORIGIN_BYTES && text.is_ascii();
    if !may_be_one(origin) || !may_be_one(host) {
        return false;
    }
    let Ok(origin) = Url::parse(origin) else {
        return false;
    };
    if !matches!(origin.scheme(), "http" | "https") {
        return false;
    }
    let Ok(own) = Url::parse(&format!("{}://{host}", origin.scheme())) else {
        return false;
    };
    own.path() == "/"
        && own.username().is_empty()
        && own.password().is_none()
        && own.query().is_none()
        && own.fragment().is_none()
        && own.origin() == origin.origin()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(list: &str, origin: &str, host: &str) -> Verdict {
        list.parse::<AllowedOrigins>()
            .unwrap()
            .judge(Some(origin.as_bytes()), Some(host.as_bytes()))
    }

    #[test]
    fn a_request_without_origin_is_allowed() {
        assert_eq!(
            AllowedOrigins::default().judge(None, Some(b"hub:3000")),
            Verdict::NoOrigin
        );
    }

    #[test]
    fn the_hubs_own_origin_is_always_allowed() {
        for (origin, host) in [
            ("http://localhost:3000", "localhost:3000"),
            ("https://hub.example.com", "hub.example.com"),
            ("https://hub.example.com", "hub.example.com:443"),
            ("http://HUB.example.com", "hub.example.com"),
            ("http://[::1]:3000", "[::1]:3000"),
        ] {
            assert_eq!(
                judge("", origin, host),
                Verdict::Allowed,
                "{origin} at {host}"
            );
        }
    }

    #[test]
    fn listed_origins_are_allowed_by_exact_comparison_only() {
        let list = "https://example.com, http://localhost:5173/";
        assert_eq!(judge(list, "https://example.com", "hub"), Verdict::Allowed);
        assert_eq!(
            judge(list, "http://localhost:5173", "hub"),
            Verdict::Allowed
        );
        for origin in [
            "https://evil-example.com",
            "https://example.com.evil.com",
            "https://sub.example.com",
            "http://example.com",
            "https://example.com:444",
            "http://localhost:51730",
            "null",
            "",
            "file://",
            "garbage",
        ] {
            assert_eq!(
                judge(list, origin, "hub:3000"),
                Verdict::Refused,
                "{origin:?}"
            );
        }
        assert_eq!(
            list.parse::<AllowedOrigins>()
                .unwrap()
                .judge(Some(b"https://\xff"), Some(b"hub")),
            Verdict::Refused
        );
    }

    #[test]
    fn a_star_allows_every_origin_as_any() {
        assert_eq!(
            judge("*", "https://other.example", "hub"),
            Verdict::AllowedToAny
        );
        assert_eq!(judge("*", "null", "hub"), Verdict::AllowedToAny);
        assert_eq!(
            judge("*,https://a.example", "https://a.example", "hub"),
            Verdict::Allowed
        );
    }

    /// A bug: 24 KB of long names that are not ASCII took some 10 ms.
    #[test]
    fn what_no_browser_sends_is_not_parsed() {
        let longest = "a".repeat(60) + &".b".repeat(96);
        let authority = format!("{longest}:65535");
        let own = format!("https://{authority}");
        assert_eq!(judge("", &own, &authority), Verdict::Allowed);
        let long = "a.".repeat(150);
        for authority in ["b\u{fc}cher.example", &long] {
            let own = format!("http://{authority}");
            assert_eq!(judge("", &own, authority), Verdict::Refused, "{own}");
        }
    }

    #[test]
    fn a_host_header_cannot_smuggle_an_origin() {
        assert_eq!(judge("", "http://evil.com", "x@evil.com"), Verdict::Refused);
        assert_eq!(
            judge("", "http://evil.com", "evil.com/path"),
            Verdict::Refused
        );
    }

    #[test]
    fn entries_that_are_no_origins_are_refused_with_the_repair() {
        let fault = "example.com".parse::<AllowedOrigins>().unwrap_err();
        assert!(fault.to_string().contains("https://"), "{fault}");
        let fault = "https://a.example/app"
            .parse::<AllowedOrigins>()
            .unwrap_err();
        assert_eq!(
            fault,
            OriginFault::HasPath {
                entry: "https://a.example/app".into(),
                origin: "https://a.example".into()
            }
        );
        assert!("data:text/html,x".parse::<AllowedOrigins>().is_err());
    }
}
