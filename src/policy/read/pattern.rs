//! `[imported_keys]`: which part of regular expressions a pattern may use, and what else is refused.

use std::{iter::Peekable, str::CharIndices};

use super::Table;
use crate::policy::pattern::{Characters, KeyPattern, Piece};

const EXPECTED: &str = "a pattern such as \"sk_[0-9a-f]{32}\"";
/// No longer key is looked at.
const LENGTH_MAX: u16 = 256;
/// A key is all that stands between a stranger and an account's credits: as many as 16
/// hexadecimal digits make.
const KEYS_MIN: u128 = 1 << 64;

/// The pattern of the table, for a deployment that issues keys under `prefixes`.
pub(super) fn read(table: Option<Table<'_>>, prefixes: &[String]) -> Option<KeyPattern> {
    let mut table = table?;
    let value = table.require("pattern", EXPECTED);
    table.finish();
    let value = value?;
    let text = value.text(EXPECTED)?;
    let pattern = parse(text).and_then(|pattern| check(pattern, prefixes));
    pattern
        .map_err(|Wrong { expected, at }| match at {
            None => value.wrong(expected),
            Some(index) => {
                let before = text.get(..index).unwrap_or(text);
                let place = before.chars().count().saturating_add(1);
                value.wrong(&format!("{expected} (character {place})"));
            }
        })
        .ok()
}

/// What should be there instead, at this byte or in all of it.
struct Wrong {
    expected: &'static str,
    at: Option<usize>,
}

const fn whole_is_not(expected: &'static str) -> Wrong {
    Wrong { expected, at: None }
}

const fn wrong_at(index: usize, expected: &'static str) -> Wrong {
    Wrong {
        expected,
        at: Some(index),
    }
}

fn check(pattern: KeyPattern, prefixes: &[String]) -> Result<KeyPattern, Wrong> {
    if pattern.shortest_keys() < KEYS_MIN {
        return Err(whole_is_not(
            "keys that nobody can guess, with at least the 64 random bits of [0-9a-f]{16}",
        ));
    }
    let takes_ours = |prefix: &String| pattern.may_begin_with(&format!("{prefix}_"));
    if prefixes.iter().any(takes_ours) {
        return Err(whole_is_not(
            "keys that cannot begin as this gateway's own do (key_prefix, key_prefixes)",
        ));
    }
    Ok(pattern)
}

fn parse(text: &str) -> Result<KeyPattern, Wrong> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut length = 0_u16;
    let mut rest = text.char_indices().peekable();
    while let Some((index, character)) = rest.next() {
        let characters = match character {
            '[' => read_class(index, &mut rest)?,
            '\\' => single(read_escaped(index, &mut rest)?),
            '^' | '$' => {
                return Err(wrong_at(
                    index,
                    "neither ^ nor $: the pattern is that of the whole key",
                ));
            }
            '.' | '*' | '+' | '?' | '(' | ')' | '|' | '{' | '}' | ']' => {
                return Err(wrong_at(
                    index,
                    "characters, classes such as [0-9a-f], {n} or {n,m}, and \\ before a sign that means itself",
                ));
            }
            character => single(of_a_key(index, character)?),
        };
        let (least, most) = match rest.next_if(|(_, next)| *next == '{') {
            Some((index, _)) => read_count(index, &mut rest)?,
            None => (1, 1),
        };
        length = length.saturating_add(most);
        if length > LENGTH_MAX {
            return Err(whole_is_not("keys of at most 256 characters"));
        }
        if let Some(last) = pieces.last()
            && last.least < last.most
            && last.characters.overlaps(characters)
        {
            return Err(wrong_at(
                index,
                "none of the characters that {n,m} repeats right before, or nobody could tell where they end",
            ));
        }
        pieces.push(Piece {
            characters,
            least,
            most,
        });
    }
    if pieces.is_empty() {
        return Err(whole_is_not(EXPECTED));
    }
    Ok(KeyPattern { pieces })
}

type Rest<'a> = Peekable<CharIndices<'a>>;

/// The rest of `[…]`.
fn read_class(start: usize, rest: &mut Rest<'_>) -> Result<Characters, Wrong> {
    let mut class = Characters::default();
    loop {
        let Some((index, character)) = rest.next() else {
            return Err(wrong_at(start, "a ] that closes this ["));
        };
        let first = match character {
            ']' if class.is_empty() => {
                return Err(wrong_at(start, "a class of one character at least"));
            }
            ']' => return Ok(class),
            '[' | '^' => {
                return Err(wrong_at(
                    index,
                    "a class that lists what may stand there, with \\ before a sign that means itself",
                ));
            }
            '\\' => read_escaped(index, rest)?,
            character => of_a_key(index, character)?,
        };
        // A - that stands first or last means itself.
        let last = match rest.next_if(|(_, next)| character != '-' && *next == '-') {
            None => {
                class.insert(first);
                continue;
            }
            Some(_) if rest.peek().is_some_and(|(_, next)| *next == ']') => {
                class.insert(first);
                class.insert(b'-');
                continue;
            }
            Some(_) => rest.next().map_or(0, |(_, last)| as_byte(last)),
        };
        let kinds: [fn(&u8) -> bool; 3] = [
            u8::is_ascii_digit,
            u8::is_ascii_lowercase,
            u8::is_ascii_uppercase,
        ];
        if first > last || !kinds.iter().any(|is_of| is_of(&first) && is_of(&last)) {
            return Err(wrong_at(
                index,
                "a range that goes up, from digit to digit, a to z or A to Z",
            ));
        }
        (first..=last).for_each(|byte| class.insert(byte));
    }
}

/// The sign after a `\`, which means itself.
fn read_escaped(start: usize, rest: &mut Rest<'_>) -> Result<u8, Wrong> {
    match rest.next() {
        Some((index, sign)) if sign.is_ascii_punctuation() => of_a_key(index, sign),
        _ => Err(wrong_at(
            start,
            "a sign that means itself after \\, and [0-9] for \\d",
        )),
    }
}

/// The rest of `{n}` or `{n,m}`.
fn read_count(start: usize, rest: &mut Rest<'_>) -> Result<(u16, u16), Wrong> {
    let inside: String = rest
        .by_ref()
        .map(|(_, character)| character)
        .take_while(|character| *character != '}')
        .collect();
    let (least, most) = inside.split_once(',').unwrap_or((&inside, &inside));
    match (whole(least), whole(most)) {
        (Some(least), Some(most)) if least <= most => Ok((least, most)),
        _ => Err(wrong_at(start, "{n} or {n,m}, with numbers from 1 to 256")),
    }
}

fn whole(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| is_number)?;
    (1..=LENGTH_MAX).contains(&number).then_some(number)
}

/// A header that comes twice arrives as one, joined by a comma, and spaces around a key are nothing
/// of it.
fn of_a_key(index: usize, character: char) -> Result<u8, Wrong> {
    if character.is_ascii_graphic() && character != ',' {
        return Ok(as_byte(character));
    }
    Err(wrong_at(
        index,
        "neither spaces nor commas, and nothing outside ASCII: no key has them",
    ))
}

fn as_byte(character: char) -> u8 {
    u8::try_from(character).unwrap_or(0)
}

fn single(byte: u8) -> Characters {
    let mut class = Characters::default();
    class.insert(byte);
    class
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn pattern(text: &str) -> KeyPattern {
        parse(text).unwrap_or_else(|_| panic!("{text}"))
    }

    #[test]
    fn a_pattern_matches_whole_keys_and_nothing_else() {
        for (text, matching, others) in [
            (
                "sk_[0-9a-f]{4}",
                vec!["sk_0a9f", "sk_ffff"],
                vec![
                    "", "sk_", "sk_0a9", "sk_0a9f0", "sk_0A9F", "xsk_0a9f", "sk-0a9f", "sk_0a9é",
                ],
            ),
            (
                "[A-Z]{2,4}-[a-z0-9]{1,2}",
                vec!["AB-x", "ABCD-x9", "ABC-9"],
                vec!["A-x", "ABCDE-x", "AB-", "AB-xyz", "ABx", "AB"],
            ),
            ("a{2}a", vec!["aaa"], vec!["aa", "aaaa"]),
            (
                "[-_.]\\.[+\\]\\\\]",
                vec!["-.+", "_.]", "..\\"],
                vec!["-..", "--+", "-.-"],
            ),
            ("[a-c-]x~", vec!["-x~", "bx~"], vec!["dx~", "_x~"]),
        ] {
            let pattern = pattern(text);
            for key in matching {
                assert!(pattern.matches(key), "{text} {key}");
            }
            for key in others {
                assert!(!pattern.matches(key), "{text} {key}");
            }
        }
    }

    #[test]
    fn what_a_pattern_may_begin_with_is_known() {
        let pattern = pattern("[a-z]{2,4}_[a-z]{8}");
        for (text, may) in [
            ("", true),
            ("tk", true),
            ("tk_live", true),
            ("tk_live_", false),
            ("t_", false),
            ("token_", false),
            ("tk_", true),
        ] {
            assert_eq!(pattern.may_begin_with(text), may, "{text}");
        }
    }

    proptest! {
        // Against the obvious way: every length of every piece is tried.
        #[test]
        fn a_pattern_agrees_with_one_that_tries_everything(
            pieces in prop::collection::vec(("[abc]{1,2}", 1_u16..3, 0_u16..3), 1..5),
            key in "[abcd]{0,10}",
        ) {
            let text: String = pieces
                .iter()
                .map(|(class, least, more)| format!("[{class}]{{{least},{}}}", least + more))
                .collect();
            if let Ok(pattern) = parse(&text) {
                prop_assert_eq!(pattern.matches(&key), tries(&pattern.pieces, key.as_bytes()));
            }
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,20}|[\\[\\]{},a-z0-9^.\\\\-]{0,20}") {
            let _ = parse(&text);
        }
    }

    fn tries(pieces: &[Piece], key: &[u8]) -> bool {
        let Some((piece, rest)) = pieces.split_first() else {
            return key.is_empty();
        };
        (piece.least..=piece.most).any(|count| {
            key.split_at_checked(count.into())
                .is_some_and(|(taken, left)| {
                    taken.iter().all(|byte| piece.characters.contains(*byte)) && tries(rest, left)
                })
        })
    }
}
