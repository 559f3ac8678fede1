//! Addresses: what belongs to the endpoint, and how names are written into them.

use ureq::http::Uri;
use ureq::http::uri::Scheme;

/// Scheme, host and port: what decides who sees a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    https: bool,
    host: String,
    port: u16,
}

impl Origin {
    /// That of an address; `None` if it is not one of HTTP.
    pub(crate) fn of(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let https = match uri.scheme()? {
            scheme if *scheme == Scheme::HTTPS => true,
            scheme if *scheme == Scheme::HTTP => false,
            _ => return None,
        };
        let host = uri.host().filter(|host| !host.is_empty())?;
        Some(Self {
            https,
            host: host.to_ascii_lowercase(),
            port: uri.port_u16().unwrap_or(if https { 443 } else { 80 }),
        })
    }

    /// Whether going from here to `other` gives up encryption.
    pub(crate) fn is_downgraded_by(&self, other: &Self) -> bool {
        self.https && !other.https
    }
}

/// Where a redirect leads: an address as it is, or a path on the same server.
pub(crate) fn join(from: &str, location: &str) -> Option<String> {
    if Origin::of(location).is_some() {
        return Some(location.to_owned());
    }
    if !location.starts_with('/') || location.starts_with("//") {
        return None;
    }
    let start = from.find("://")? + 3;
    let end = from
        .get(start..)?
        .find('/')
        .map_or(from.len(), |at| start + at);
    Some(format!("{}{location}", from.get(..end)?))
}

/// An address for people: without its query, which may be a signature that lets its bearer in.
pub(crate) fn shown(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}

/// A path as a part of an address; slashes stay.
pub(crate) fn encode_path(path: &str) -> String {
    path.split('/').map(encode).collect::<Vec<_>>().join("/")
}

/// A name as a part of an address, slashes included.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded += &format!("%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_differ_by_scheme_host_and_port() {
        let of = |url| Origin::of(url).unwrap();
        assert_eq!(of("https://Hub.co"), of("https://hub.co:443/a?b"));
        for other in ["http://hub.co", "https://hub.co:8443", "https://cdn.hub.co"] {
            assert_ne!(of("https://hub.co"), of(other), "{other}");
        }
        assert!(of("https://a").is_downgraded_by(&of("http://a")));
        assert!(!of("http://a").is_downgraded_by(&of("https://a")));
        assert!(Origin::of("ftp://a").is_none() && Origin::of("/a").is_none());
    }

    #[test]
    fn redirects_are_followed_as_written() {
        let join = |location| join("https://hub.co:1/a/b?c", location);
        assert_eq!(join("/x?y"), Some("https://hub.co:1/x?y".to_owned()));
        assert_eq!(join("http://cdn/x"), Some("http://cdn/x".to_owned()));
        for odd in ["x", "//cdn/x", "", "file:///etc"] {
            assert_eq!(join(odd), None, "{odd}");
        }
    }

    #[test]
    fn names_become_parts_of_addresses() {
        assert_eq!(encode_path("a b/c#1%.bin"), "a%20b/c%231%25.bin");
        assert_eq!(encode("refs/pr/3"), "refs%2Fpr%2F3");
        assert_eq!(encode("é"), "%C3%A9");
        assert_eq!(shown("https://cdn/x?Signature=s#f"), "https://cdn/x");
    }
}
