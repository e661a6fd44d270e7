//! The one canonical path: the string that is matched, priced and forwarded.
//!
//! What a path means is what it decodes to, and a gateway and its origin must not decode it
//! differently. So every decoded path has exactly one spelling here, and whatever servers are
//! known to read in two ways is refused.

use std::fmt;

use crate::caseless;

/// The path of a request in its only spelling: `/` and the characters that may stand in a
/// segment as themselves (RFC 3986 §3.3 `pchar`, except `;`), every other byte as `%XX` in upper
/// case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CanonicalPath {
    canonical: String,
    decoded: String,
}

impl CanonicalPath {
    /// Reads the path part of a URL as it was sent, percent-encoded and without the query.
    ///
    /// # Errors
    ///
    /// The rule that the path breaks.
    pub fn parse(raw: &str) -> Result<Self, BadPath> {
        if !raw.starts_with('/') {
            return Err(BadPath::NotAbsolute);
        }
        let decoded = decode(raw)?;
        if decoded.chars().any(char::is_control) {
            return Err(BadPath::ControlCharacter);
        }
        if is_encoded_twice(&decoded) {
            return Err(BadPath::DoubleEncoding);
        }
        if decoded.contains("//") {
            return Err(BadPath::EmptySegment);
        }
        if decoded
            .split('/')
            .any(|segment| matches!(segment, "." | ".."))
        {
            return Err(BadPath::DotSegment);
        }
        Ok(Self {
            canonical: encode(&decoded),
            decoded,
        })
    }

    /// The canonical spelling: what is forwarded.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.canonical
    }

    /// The segments after the leading `/`; the last is empty where the path ends in `/`.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        segments(&self.canonical)
    }

    /// The decoded path without its case: what a careless origin may take it for.
    #[must_use]
    pub fn folded(&self) -> String {
        caseless::fold(&self.decoded)
    }
}

impl fmt::Display for CanonicalPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.canonical)
    }
}

/// The rule that a path breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPath {
    /// No leading `/`.
    NotAbsolute,
    /// `.` or `..` as a segment.
    DotSegment,
    /// `//`.
    EmptySegment,
    /// `\`.
    Backslash,
    /// `;`, where some servers cut a segment off.
    Semicolon,
    /// `?` or `#`, which end a path.
    Delimiter,
    /// A control character, encoded or not.
    ControlCharacter,
    /// `%` without two hex digits, or bytes that are not UTF-8.
    InvalidEncoding,
    /// What decodes to something that is encoded again, such as `%2541`.
    DoubleEncoding,
    /// `/`, `\` or `.` in encoded form.
    EncodedSeparator,
}

impl fmt::Display for BadPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NotAbsolute => "the path must start with /",
            Self::DotSegment => "the path must not have the segments . and ..",
            Self::EmptySegment => "the path must not have // in it",
            Self::Backslash => "the path must not have a backslash in it",
            Self::Semicolon => "the path must not have ; in it",
            Self::Delimiter => "the path must not have ? or # in it",
            Self::ControlCharacter => "the path must not have control characters in it",
            Self::InvalidEncoding => "the path's percent-encoding must be valid UTF-8",
            Self::DoubleEncoding => "the path must not be percent-encoded twice",
            Self::EncodedSeparator => {
                "the path must not have an encoded slash, backslash or dot in it"
            }
        })
    }
}

/// The segments of a path or template after its leading `/`.
pub(crate) fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('/').unwrap_or(path).split('/')
}

/// The decoded text. What separates segments can only stand in it where it stood in `raw`, so
/// that decoding loses nothing.
fn decode(raw: &str) -> Result<String, BadPath> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'\\' => return Err(BadPath::Backslash),
            b';' => return Err(BadPath::Semicolon),
            b'?' | b'#' => return Err(BadPath::Delimiter),
            b'%' => match decode_pair(bytes.next(), bytes.next()) {
                None => return Err(BadPath::InvalidEncoding),
                Some(b'/' | b'\\' | b'.') => return Err(BadPath::EncodedSeparator),
                Some(encoded) => encoded,
            },
            plain => plain,
        });
    }
    // Overlong forms of `.` and `/` are no UTF-8 either.
    String::from_utf8(decoded).map_err(|_| BadPath::InvalidEncoding)
}

/// The byte that two hex digits stand for.
pub(crate) fn decode_pair(high: Option<u8>, low: Option<u8>) -> Option<u8> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    digit(high?)?.checked_mul(16)?.checked_add(digit(low?)?)
}

fn is_encoded_twice(decoded: &str) -> bool {
    decoded.split('%').skip(1).any(|after| {
        let mut bytes = after.bytes();
        decode_pair(bytes.next(), bytes.next()).is_some()
    })
}

fn encode(decoded: &str) -> String {
    const HEX: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    let digit = |value: u8| HEX.get(usize::from(value)).copied().unwrap_or('0');
    let mut canonical = String::with_capacity(decoded.len());
    for byte in decoded.bytes() {
        if stands_for_itself(byte) {
            canonical.push(char::from(byte));
        } else {
            canonical.extend(['%', digit(byte >> 4), digit(byte & 0xF)]);
        }
    }
    canonical
}

fn stands_for_itself(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,=:@".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_spelling_of_a_path_becomes_the_same_one() {
        for (raw, canonical) in [
            ("/", "/"),
            ("/search", "/search"),
            ("/search/", "/search/"),
            ("/%73earch", "/search"),
            ("/a%7eb", "/a~b"),
            ("/models/x%3Agenerate", "/models/x:generate"),
            ("/models/x%3agenerate", "/models/x:generate"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/café", "/caf%C3%A9"),
            ("/a b", "/a%20b"),
            ("/a|b[0]", "/a%7Cb%5B0%5D"),
            ("/100%25", "/100%25"),
            ("/100%25/x", "/100%25/x"),
            ("/a%3Bb", "/a%3Bb"),
            ("/a%3fb", "/a%3Fb"),
            ("/...", "/..."),
            ("/.well-known/x", "/.well-known/x"),
        ] {
            let path = CanonicalPath::parse(raw).unwrap();
            assert_eq!(path.as_str(), canonical, "{raw}");
            assert_eq!(CanonicalPath::parse(canonical), Ok(path), "{raw}");
        }
    }

    #[test]
    fn what_servers_read_in_two_ways_is_refused() {
        for (raw, rule) in [
            ("", BadPath::NotAbsolute),
            ("*", BadPath::NotAbsolute),
            ("search", BadPath::NotAbsolute),
            ("https://example.com/", BadPath::NotAbsolute),
            ("/.", BadPath::DotSegment),
            ("/a/../b", BadPath::DotSegment),
            ("/a/..", BadPath::DotSegment),
            ("/a/./b", BadPath::DotSegment),
            ("//", BadPath::EmptySegment),
            ("/a//b", BadPath::EmptySegment),
            ("/a\\b", BadPath::Backslash),
            ("/a;b=1", BadPath::Semicolon),
            ("/a?b", BadPath::Delimiter),
            ("/a#b", BadPath::Delimiter),
            ("/a\nb", BadPath::ControlCharacter),
            ("/a%0Ab", BadPath::ControlCharacter),
            ("/a%00", BadPath::ControlCharacter),
            ("/a%7f", BadPath::ControlCharacter),
            ("/a%C2%80", BadPath::ControlCharacter),
            ("/a%", BadPath::InvalidEncoding),
            ("/a%4", BadPath::InvalidEncoding),
            ("/a%4g", BadPath::InvalidEncoding),
            ("/a%+1", BadPath::InvalidEncoding),
            ("/a%ff", BadPath::InvalidEncoding),
            ("/a%c0%ae%c0%ae/b", BadPath::InvalidEncoding),
            ("/a%252e", BadPath::DoubleEncoding),
            ("/a%25%32%65", BadPath::DoubleEncoding),
            ("/%2541", BadPath::DoubleEncoding),
            ("/a%2Fb", BadPath::EncodedSeparator),
            ("/a%5cb", BadPath::EncodedSeparator),
            ("/%2e%2e/b", BadPath::EncodedSeparator),
            ("/file%2Etxt", BadPath::EncodedSeparator),
        ] {
            assert_eq!(CanonicalPath::parse(raw), Err(rule), "{raw}");
        }
    }

    #[test]
    fn the_folded_path_is_what_a_careless_origin_reads() {
        for (raw, folded) in [("/Search/", "/search/"), ("/CAF%C3%89", "/café")] {
            assert_eq!(CanonicalPath::parse(raw).unwrap().folded(), folded);
        }
    }

    proptest! {
        #[test]
        fn a_canonical_path_is_its_own_canonical_path(raw in "/([a-zA-Z.;/\\\\é{}~:%]|%[0-9a-fA-F]{2}){0,12}") {
            if let Ok(path) = CanonicalPath::parse(&raw) {
                prop_assert_eq!(CanonicalPath::parse(path.as_str()), Ok(path));
            }
        }

        #[test]
        fn no_canonical_path_has_two_spellings(decoded in "/[ -~é]{0,12}") {
            // However each byte is spelled, the path that comes out is the same.
            let spelled: String = decoded
                .bytes()
                .map(|byte| if byte == b'/' || byte == b'.' { char::from(byte).to_string() } else { format!("%{byte:02x}") })
                .collect();
            if let (Ok(plain), Ok(spelled)) = (CanonicalPath::parse(&decoded), CanonicalPath::parse(&spelled)) {
                prop_assert_eq!(plain, spelled);
            }
        }

        #[test]
        fn no_text_at_all_makes_it_panic(raw in "\\PC*") {
            let _ = CanonicalPath::parse(&raw);
        }
    }
}
