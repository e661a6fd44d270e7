//! Which key a request presents, and in which of its headers.

use super::looks_like_ours;
use crate::policy::KeyPattern;

/// What a request's credentials hold for Tollgate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presented<'a> {
    /// No key of Tollgate's. Whatever else `Authorization` and `X-API-Key` carry is the origin's.
    None,
    /// One key, not yet verified.
    Key {
        /// Its text.
        text: &'a str,
        /// Where it stood.
        carriers: Carriers,
    },
    /// One key, of the pattern that keys issued before Tollgate have, not yet looked up.
    Imported {
        /// Its text.
        text: &'a str,
        /// Where it stood.
        carriers: Carriers,
    },
    /// Two different keys: who is to pay cannot be told.
    TwoDifferent,
    /// A key and another credential in one header. Handing the header on would show the origin
    /// the key, dropping it would take the origin's credential away.
    Mixed,
}

/// The headers that hold Tollgate's key and nothing else: not forwarded, unless `forward_key`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carriers {
    /// `Authorization: Bearer KEY`.
    pub authorization: bool,
    /// `X-API-Key: KEY`.
    pub x_api_key: bool,
}

impl<'a> Presented<'a> {
    /// Reads the values of `Authorization` and `X-API-Key`. Only what starts with one of
    /// `prefixes` counts, and what is an `imported` key.
    ///
    /// A header sent twice arrives as one value joined by `, ` (RFC 9110 §5.3). No key contains
    /// a comma, so each part is looked at: a second key cannot hide behind a first.
    #[must_use]
    pub fn read(
        authorization: Option<&'a str>,
        x_api_key: Option<&'a str>,
        prefixes: &[String],
        imported: Option<&KeyPattern>,
    ) -> Self {
        let is_imported = |text: &str| imported.is_some_and(|pattern| pattern.matches(text));
        // No key is both: the policy refuses such a pattern.
        let ours = |text: &&str| looks_like_ours(prefixes, text) || is_imported(text);
        let authorization = Held::read(authorization, |part| bearer(part).filter(ours));
        let x_api_key = Held::read(x_api_key, |part| Some(part).filter(ours));
        match (authorization, x_api_key) {
            (Held::TwoDifferent, _) | (_, Held::TwoDifferent) => Self::TwoDifferent,
            (Held::Key(one) | Held::Mixed(one), Held::Key(other) | Held::Mixed(other))
                if one != other =>
            {
                Self::TwoDifferent
            }
            (Held::Mixed(_), _) | (_, Held::Mixed(_)) => Self::Mixed,
            (Held::Foreign, Held::Foreign) => Self::None,
            (Held::Key(text), _) | (Held::Foreign, Held::Key(text)) => {
                let carriers = Carriers {
                    authorization: matches!(authorization, Held::Key(_)),
                    x_api_key: matches!(x_api_key, Held::Key(_)),
                };
                if is_imported(text) {
                    Self::Imported { text, carriers }
                } else {
                    Self::Key { text, carriers }
                }
            }
        }
    }
}

/// The token of `Bearer TOKEN`, the scheme in any case (RFC 9110 §11.1, RFC 6750 §2.1).
#[must_use]
pub fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim_matches(' '))
}

/// What one header holds.
#[derive(Clone, Copy)]
enum Held<'a> {
    /// Nothing of Tollgate's.
    Foreign,
    /// One key, perhaps more than once.
    Key(&'a str),
    /// One key and something else.
    Mixed(&'a str),
    TwoDifferent,
}

impl<'a> Held<'a> {
    fn read(value: Option<&'a str>, key_of: impl Fn(&'a str) -> Option<&'a str>) -> Self {
        let parts = || {
            let parts = value.unwrap_or_default().split(',');
            parts.map(|part| key_of(part.trim_matches([' ', '\t'])))
        };
        let Some(key) = parts().flatten().next() else {
            return Self::Foreign;
        };
        if parts().flatten().any(|other| other != key) {
            Self::TwoDifferent
        } else if parts().any(|part| part.is_none()) {
            Self::Mixed(key)
        } else {
            Self::Key(key)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::policy::Policy;

    fn read<'a>(authorization: &'a str, x_api_key: &'a str) -> Presented<'a> {
        let prefixes = ["tk_live".to_owned(), "old".to_owned()];
        let value = |text: &'a str| (!text.is_empty()).then_some(text);
        Presented::read(value(authorization), value(x_api_key), &prefixes, None)
    }

    const fn key(text: &str, authorization: bool, x_api_key: bool) -> Presented<'_> {
        Presented::Key {
            text,
            carriers: Carriers {
                authorization,
                x_api_key,
            },
        }
    }

    #[test]
    fn a_key_is_found_where_it_stands() {
        for (authorization, x_api_key, expected) in [
            ("Bearer tk_live_A", "", key("tk_live_A", true, false)),
            ("bearer tk_live_A", "", key("tk_live_A", true, false)),
            ("BEARER   tk_live_A", "", key("tk_live_A", true, false)),
            ("Bearer old_A", "", key("old_A", true, false)),
            ("", "tk_live_A", key("tk_live_A", false, true)),
            (
                "Bearer tk_live_A",
                "tk_live_A",
                key("tk_live_A", true, true),
            ),
            ("Bearer tk_live_", "", key("tk_live_", true, false)),
            // Spoilt inside, and still a key: it is refused as one and not taken for another's.
            ("Bearer tk_live_A B", "", key("tk_live_A B", true, false)),
        ] {
            assert_eq!(
                read(authorization, x_api_key),
                expected,
                "{authorization} / {x_api_key}"
            );
        }
    }

    #[test]
    fn a_foreign_credential_is_the_origins() {
        for (authorization, x_api_key) in [
            ("", ""),
            ("Basic dXNlcjpwYXNz", ""),
            ("Bearer eyJhbGciOi", ""),
            ("Bearer tk_test_A", "sk_1"),
            ("Bearer tk_liveA", ""),
            ("Bearer", "tk_live"),
            ("Bearertk_live_A", ""),
            ("Basic tk_live_A", ""),
            ("tk_live_A", ""),
            ("Bearer TK_LIVE_A", ""),
            ("Digest username=\"a\", realm=\"tk_live_A\", uri=\"/\"", ""),
        ] {
            assert_eq!(
                read(authorization, x_api_key),
                Presented::None,
                "{authorization} / {x_api_key}"
            );
        }
    }

    #[test]
    fn a_key_beside_a_foreign_credential_leaves_that_one_alone() {
        assert_eq!(
            read("Basic dXNlcjpwYXNz", "tk_live_A"),
            key("tk_live_A", false, true)
        );
        assert_eq!(
            read("Bearer tk_live_A", "the-origins-own"),
            key("tk_live_A", true, false)
        );
    }

    #[test]
    fn a_repeated_header_is_one_key_only_if_all_its_parts_are() {
        for (authorization, x_api_key, expected) in [
            (
                "Bearer tk_live_A, Bearer tk_live_A",
                "",
                key("tk_live_A", true, false),
            ),
            ("", "tk_live_A,tk_live_A", key("tk_live_A", false, true)),
            (
                "Bearer tk_live_A, Bearer tk_live_B",
                "",
                Presented::TwoDifferent,
            ),
            ("Bearer tk_live_A,Bearer old_A", "", Presented::TwoDifferent),
            ("", "tk_live_A, tk_live_B", Presented::TwoDifferent),
            ("Bearer tk_live_A", "tk_live_B", Presented::TwoDifferent),
            (
                "Basic x, Bearer tk_live_A",
                "tk_live_B",
                Presented::TwoDifferent,
            ),
            (
                "Bearer tk_live_A, Basic x, Bearer tk_live_B",
                "",
                Presented::TwoDifferent,
            ),
            ("Bearer tk_live_A, Basic x", "", Presented::Mixed),
            ("Basic x, Bearer tk_live_A", "", Presented::Mixed),
            ("Basic x, Bearer tk_live_A", "tk_live_A", Presented::Mixed),
            ("", "sk_1, tk_live_A", Presented::Mixed),
            ("Bearer tk_live_A,", "", Presented::Mixed),
        ] {
            assert_eq!(
                read(authorization, x_api_key),
                expected,
                "{authorization} / {x_api_key}"
            );
        }
    }

    #[test]
    fn what_matches_the_pattern_is_an_imported_key_and_nothing_else_is() {
        let text = format!(
            "{}\n[imported_keys]\npattern = \"sk_[0-9a-f]{{16}}\"",
            include_str!("../../policy.toml")
        );
        let policy = Policy::parse(&text).unwrap();
        let (prefixes, pattern) = (["tk_live".to_owned()], policy.imported_keys.as_ref());
        let imported = |authorization, x_api_key| Presented::Imported {
            text: "sk_0123456789abcdef",
            carriers: Carriers {
                authorization,
                x_api_key,
            },
        };
        for (authorization, x_api_key, expected) in [
            (
                Some("Bearer sk_0123456789abcdef"),
                None,
                imported(true, false),
            ),
            (None, Some("sk_0123456789abcdef"), imported(false, true)),
            (
                Some("Bearer sk_0123456789abcdef"),
                Some("sk_0123456789abcdef"),
                imported(true, true),
            ),
            (Some("Bearer sk_0123456789abcde"), None, Presented::None),
            (Some("Bearer sk_0123456789abcdef0"), None, Presented::None),
            (Some("Bearer SK_0123456789ABCDEF"), None, Presented::None),
            (Some("sk_0123456789abcdef"), None, Presented::None),
            (
                Some("Bearer tk_live_A"),
                None,
                key("tk_live_A", true, false),
            ),
            (
                Some("Bearer tk_live_A"),
                Some("sk_0123456789abcdef"),
                Presented::TwoDifferent,
            ),
            (
                None,
                Some("sk_0123456789abcdef, sk_fedcba9876543210"),
                Presented::TwoDifferent,
            ),
            (None, Some("sk_0123456789abcdef, other"), Presented::Mixed),
        ] {
            let read = Presented::read(authorization, x_api_key, &prefixes, pattern);
            assert_eq!(read, expected, "{authorization:?} / {x_api_key:?}");
        }
    }
}
