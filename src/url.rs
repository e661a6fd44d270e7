//! The URL that was called, taken apart without being changed.

use crate::path::decode_pair;

/// Views into a URL: `https://host:port/path?query`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CalledUrl<'a> {
    /// `https` or `http`.
    pub scheme: &'a str,
    /// Host, and port if the URL names one.
    pub authority: &'a str,
    /// The path as it was sent; empty only if nothing was.
    pub path: &'a str,
    /// The query as it was sent, without its `?`; `None` where there is no `?`.
    pub query: Option<&'a str>,
}

impl<'a> CalledUrl<'a> {
    /// Takes an absolute URL apart (RFC 3986 §3). A fragment never reaches a server.
    #[must_use]
    pub fn split(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once(':')?;
        let rest = rest.strip_prefix("//")?;
        let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at_checked(authority_end)?;
        let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        Some(Self {
            scheme,
            authority,
            path,
            query,
        })
    }

    /// The host in lower case, without the port: what policies name.
    #[must_use]
    pub fn host(&self) -> String {
        let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
        let host = match self.authority.rsplit_once(':') {
            Some((host, port)) if is_port(port) => host,
            _ => self.authority,
        };
        host.to_ascii_lowercase()
    }

    /// Scheme, host and port: `https://host:port`.
    #[must_use]
    pub fn origin(&self) -> String {
        format!("{}://{}", self.scheme, self.authority)
    }
}

/// Form decoding as browsers and servers do it (WHATWG URL §5.1): `+` is a space, and a `%` that
/// starts no pair stays.
#[must_use]
pub fn decode_form(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let mut ahead = bytes.clone();
        let pair = (byte == b'%')
            .then(|| decode_pair(ahead.next(), ahead.next()))
            .flatten();
        match (byte, pair) {
            (_, Some(pair)) => {
                decoded.push(pair);
                bytes = ahead;
            }
            (b'+', None) => decoded.push(b' '),
            (plain, None) => decoded.push(plain),
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_as_it_was_sent() {
        let cases = [
            (
                "https://a.example/b/c?d=e?f",
                "https",
                "a.example",
                "/b/c",
                Some("d=e?f"),
            ),
            (
                "http://127.0.0.1:8787/",
                "http",
                "127.0.0.1:8787",
                "/",
                None,
            ),
            ("https://A.example?", "https", "A.example", "", Some("")),
            ("https://a.example/b#c?d", "https", "a.example", "/b", None),
            (
                "https://a.example//b/%2e?x",
                "https",
                "a.example",
                "//b/%2e",
                Some("x"),
            ),
        ];
        for (url, scheme, authority, path, query) in cases {
            let split = CalledUrl::split(url);
            assert_eq!(
                split,
                Some(CalledUrl {
                    scheme,
                    authority,
                    path,
                    query
                }),
                "{url}"
            );
        }
        assert_eq!(CalledUrl::split("/only/a/path"), None);
    }

    #[test]
    fn a_host_is_named_in_lower_case_and_without_its_port() {
        for (url, host) in [
            ("https://API.Example.com/", "api.example.com"),
            ("http://127.0.0.1:8787/", "127.0.0.1"),
            ("http://[::1]:8787/", "[::1]"),
            ("http://[::1]/", "[::1]"),
        ] {
            assert_eq!(CalledUrl::split(url).unwrap().host(), host, "{url}");
        }
    }
}
