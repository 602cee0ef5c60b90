//! Which namespaces a gateway is for: one name, or all those of a pattern.
//!
//! Pure. Names that only a pattern knows are the client's choice, so they are judged before any pattern sees them:
//! [`MAX_NAMESPACE_BYTES`], no control characters.
//!
//! Source: Socket.IO server API, "Dynamic namespaces"; the syntax of patterns is that of actix-web's routes.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use actix_router::{Path, ResourceDef};

use crate::socket_io::ids::Namespace;

/// Bytes in a namespace's name that a client may choose; a name that a gateway spells out may have more.
pub const MAX_NAMESPACE_BYTES: usize = 256;

/// A pattern's own text and what it was compiled to. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pattern(Arc<ResourceDef>);

impl Pattern {
    /// Returns the part of `namespace` that the pattern names `name`.
    pub(super) fn param<'a>(&self, namespace: &'a Namespace, name: &str) -> Option<&'a str> {
        let text = namespace.as_str();
        let mut path = Path::new(text);
        if !self.0.capture_match_info(&mut path) {
            return None;
        }
        let part = path.get(name)?;
        // It is a slice of the text, though its lifetime does not say so.
        let start = (part.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
        text.get(start..start.checked_add(part.len())?)
    }

    fn text(&self) -> &str {
        self.0.pattern().unwrap_or_default()
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// The namespaces of a gateway.
#[derive(Clone)]
pub(super) enum Names {
    One(Namespace),
    Pattern(Pattern),
    Predicate(Arc<dyn Fn(&str) -> bool + Send + Sync>),
}

impl Names {
    /// One namespace; a missing leading slash is added.
    pub(super) fn one(name: &str) -> Self {
        Self::One(with_slash(name).into())
    }

    /// # Panics
    /// The pattern cannot be used.
    pub(super) fn pattern(pattern: &str) -> Self {
        Self::Pattern(Pattern(Arc::new(ResourceDef::new(with_slash(pattern)))))
    }

    /// Returns whether a name that a client chose is one of these. The caller has judged it.
    pub(super) fn matches(&self, name: &Namespace) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Pattern(Pattern(pattern)) => pattern.is_match(name.as_str()),
            Self::Predicate(matches) => {
                let call = AssertUnwindSafe(|| matches(name.as_str()));
                catch_unwind(call).unwrap_or_else(|_| {
                    log::error!("the predicate of a gateway panicked");
                    false
                })
            }
        }
    }

    /// Returns whether both are spelled the same, so that one may replace the other.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::One(one), Self::One(other)) => one == other,
            (Self::Pattern(pattern), Self::Pattern(other)) => pattern.text() == other.text(),
            (Self::One(_) | Self::Pattern(_) | Self::Predicate(_), _) => false,
        }
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(name) => f.write_str(name.as_str()),
            Self::Pattern(pattern) => pattern.fmt(f),
            Self::Predicate(_) => f.write_str("predicate"),
        }
    }
}

fn with_slash(name: &str) -> String {
    let slash = if name.starts_with('/') { "" } else { "/" };
    format!("{slash}{name}")
}

/// Returns whether a client may choose this name.
pub(super) fn is_valid(name: &Namespace) -> bool {
    let name = name.as_str();
    name.starts_with('/')
        && name.len() <= MAX_NAMESPACE_BYTES
        && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Names::pattern(pattern).matches(&name.into())
    }

    fn param(pattern: &str, namespace: &str, name: &str) -> Option<String> {
        let Names::Pattern(pattern) = Names::pattern(pattern) else {
            panic!("not a pattern");
        };
        let namespace = Namespace::from(namespace);
        pattern.param(&namespace, name).map(str::to_owned)
    }

    #[test]
    fn a_pattern_matches_whole_names_alone() {
        assert!(matches("/orders/{id}", "/orders/7"));
        assert!(matches("orders/{id}", "/orders/é"));
        for other in [
            "/orders",
            "/orders/",
            "/orders/7/x",
            "/x/orders/7",
            "/Orders/7",
        ] {
            assert!(!matches("/orders/{id}", other), "{other}");
        }
        assert!(matches("/orders/{id:[0-9]+}", "/orders/42"));
        assert!(!matches("/orders/{id:[0-9]+}", "/orders/4x"));
        assert!(matches("/files/{path}*", "/files/a/b"));
    }

    #[test]
    fn the_parts_of_a_name_are_found_by_their_names() {
        let pattern = "/shop/{shop}/orders/{id:[0-9]+}";
        let namespace = "/shop/käse/orders/42";
        assert_eq!(param(pattern, namespace, "shop").as_deref(), Some("käse"));
        assert_eq!(param(pattern, namespace, "id").as_deref(), Some("42"));
        assert_eq!(param(pattern, namespace, "other"), None);
        assert_eq!(param(pattern, "/elsewhere", "id"), None);
    }

    #[test]
    fn a_name_of_the_clients_choice_is_short_plain_text() {
        let longest = format!("/{}", "x".repeat(MAX_NAMESPACE_BYTES - 1));
        for (name, valid) in [
            ("/", true),
            ("/a b", true),
            ("/é", true),
            (longest.as_str(), true),
            (&format!("{longest}x"), false),
            ("a", false),
            ("", false),
            ("/a\nb", false),
            ("/a\0", false),
        ] {
            assert_eq!(is_valid(&name.into()), valid, "{name:?}");
        }
    }
}
