//! A strict reader of JSON (RFC 8259) that builds nothing: a checked text, and values as slices of it.
//!
//! What is read of bodies is a few members, spelled as they were sent; a member that is there twice,
//! and `1.0` for `1`, must be seen. Nesting of any depth is walked without recursion.

use std::{borrow::Cow, fmt};

/// One value: its text, as it was sent, with nothing around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a>(&'a str);

/// The text is no JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The byte that cannot stand where it does; the text's length where it ends too early.
    pub at: usize,
}

impl fmt::Display for Invalid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "what stands at byte {} is not", self.at)
    }
}

/// The value that `text` is, with white space around it or not.
///
/// # Errors
///
/// The text is no JSON, or has something after its value.
pub fn parse(text: &str) -> Result<Value<'_>, Invalid> {
    let mut scanner = Scanner { text, at: 0 };
    let read = scanner.value().filter(|_| {
        scanner.skip_space();
        scanner.at == text.len()
    });
    read.ok_or(Invalid { at: scanner.at })
}

impl<'a> Value<'a> {
    /// Its text.
    #[must_use]
    pub const fn text(self) -> &'a str {
        self.0
    }

    /// The string that it is; `None` for what is no string, and for half of a surrogate pair, which
    /// JSON can spell and no text contains.
    #[must_use]
    pub fn string(self) -> Option<Cow<'a, str>> {
        let inside = self.0.strip_prefix('"')?.strip_suffix('"')?;
        if inside.contains('\\') {
            unescape(inside).map(Cow::Owned)
        } else {
            Some(Cow::Borrowed(inside))
        }
    }

    /// The members of the object that it is, in their order; `None` for what is no object. A name that
    /// is no text is `None`.
    #[must_use]
    pub fn members(self) -> Option<Members<'a>> {
        self.0.starts_with('{').then_some(Members(Scanner {
            text: self.0,
            at: 1,
        }))
    }
}

impl<'a> Value<'a> {
    /// What the object that it is has under `name`, the first time; `None` where there is no such member.
    #[must_use]
    pub fn member(self, name: &str) -> Option<Self> {
        let mut members = self.members()?;
        let (_, value) = members.find(|(other, _)| other.as_deref() == Some(name))?;
        Some(value)
    }

    /// The whole number that it is, written in digits alone.
    #[must_use]
    pub fn whole(self) -> Option<u64> {
        let is_plain = self.0.bytes().all(|byte| byte.is_ascii_digit());
        self.0.parse().ok().filter(|_| is_plain)
    }

    /// The items of the list that it is, in their order; `None` for what is no list.
    #[must_use]
    pub fn items(self) -> Option<Items<'a>> {
        self.0.starts_with('[').then_some(Items(Scanner {
            text: self.0,
            at: 1,
        }))
    }
}

/// The items of a list.
#[derive(Debug)]
pub struct Items<'a>(Scanner<'a>);

impl<'a> Iterator for Items<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        // As of an object's members.
        self.0.skip_space();
        self.0.take(b',');
        self.0.value()
    }
}

/// The members of an object.
#[derive(Debug)]
pub struct Members<'a>(Scanner<'a>);

impl<'a> Iterator for Members<'a> {
    type Item = (Option<Cow<'a, str>>, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        // The text was checked: what does not go on as an object has ended.
        self.0.skip_space();
        self.0.take(b',');
        let name = self.0.value()?.string();
        self.0.skip_space();
        self.0.take(b':');
        Some((name, self.0.value()?))
    }
}

/// A text and a place in it. What cannot be read leaves the place where it went wrong.
#[derive(Debug)]
struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    /// Passes over white space and one value.
    fn value(&mut self) -> Option<Value<'a>> {
        self.skip_space();
        let start = self.at;
        // The brackets that close what is open, the innermost last.
        let mut open = Vec::new();
        loop {
            self.skip_space();
            let closing = match self.peek()? {
                b'{' => Some(b'}'),
                b'[' => Some(b']'),
                _ => None,
            };
            match closing {
                Some(closing) => {
                    self.step();
                    self.skip_space();
                    if !self.take(closing) {
                        open.push(closing);
                        self.name_in(closing)?;
                        continue;
                    }
                }
                None => self.scalar()?,
            }
            // A value has ended, and with it what closes here.
            loop {
                let Some(closing) = open.last().copied() else {
                    return self.text.get(start..self.at).map(Value);
                };
                self.skip_space();
                if self.take(b',') {
                    self.name_in(closing)?;
                    break;
                }
                self.expect(closing)?;
                open.pop();
            }
        }
    }

    /// Passes over a member's name and its colon where the innermost bracket is an object's.
    fn name_in(&mut self, closing: u8) -> Option<()> {
        if closing != b'}' {
            return Some(());
        }
        self.skip_space();
        self.string()?;
        self.skip_space();
        self.expect(b':')
    }

    fn scalar(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => self.string(),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => self.number(),
        }
    }

    fn word(&mut self, word: &str) -> Option<()> {
        word.bytes().try_for_each(|byte| self.expect(byte))
    }

    fn number(&mut self) -> Option<()> {
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Some(())
    }

    /// At least one digit.
    fn digits(&mut self) -> Option<()> {
        self.peek().filter(u8::is_ascii_digit)?;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.step();
        }
        Some(())
    }

    fn string(&mut self) -> Option<()> {
        self.expect(b'"')?;
        loop {
            match self.peek()? {
                b'"' => {
                    self.step();
                    return Some(());
                }
                b'\\' => {
                    self.step();
                    self.escape()?;
                }
                0..=0x1f => return None,
                _ => self.step(),
            }
        }
    }

    /// What follows a backslash.
    fn escape(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.step(),
            b'u' => {
                self.step();
                for _ in 0..4 {
                    self.peek().filter(u8::is_ascii_hexdigit)?;
                    self.step();
                }
            }
            _ => return None,
        }
        Some(())
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.step();
        }
    }

    fn peek(&self) -> Option<u8> {
        #[cfg(test)]
        crate::steps::count();
        self.text.as_bytes().get(self.at).copied()
    }

    const fn step(&mut self) {
        self.at = self.at.saturating_add(1);
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.take(byte).then_some(())
    }

    /// Steps over `byte` if it stands here.
    fn take(&mut self, byte: u8) -> bool {
        let is_here = self.peek() == Some(byte);
        if is_here {
            self.step();
        }
        is_here
    }
}

/// The text between the quotes of a checked string.
fn unescape(inside: &str) -> Option<String> {
    let mut text = String::with_capacity(inside.len());
    let mut rest = inside;
    while let Some((plain, escaped)) = rest.split_once('\\') {
        text.push_str(plain);
        let mut after = escaped.chars();
        text.push(match after.next()? {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let (read, length) = unicode(escaped)?;
                after = escaped.get(length..)?.chars();
                read
            }
            itself => itself,
        });
        rest = after.as_str();
    }
    text.push_str(rest);
    Some(text)
}

/// The character that starts with `uXXXX`, and how many bytes spell it: two such make one beyond the
/// first 65,536 (RFC 8259 §7).
fn unicode(escaped: &str) -> Option<(char, usize)> {
    let unit = |at: usize| {
        let digits = escaped.get(at..)?.strip_prefix('u')?.get(..4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    let first = unit(0)?;
    let is_pair = (0xd800..0xdc00).contains(&first);
    let second = if is_pair { Some(unit(6)?) } else { None };
    let read = char::decode_utf16([first].into_iter().chain(second)).next()?;
    Some((read.ok()?, if is_pair { 11 } else { 5 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;
    use serde_json::value::RawValue;

    /// serde_json's reading of the same text, which is the measure.
    fn oracle(text: &str) -> Option<String> {
        let raw: &RawValue = serde_json::from_str(text).ok()?;
        Some(raw.get().to_owned())
    }

    fn agrees(text: &str) {
        let read = parse(text).ok();
        assert_eq!(
            read.map(|value| value.text().to_owned()),
            oracle(text),
            "{text:?}"
        );
        let Some(value) = read else { return };
        assert_eq!(
            value.string().map(Cow::into_owned),
            serde_json::from_str(value.text()).ok(),
            "{text:?}"
        );
        let items = value
            .items()
            .map(|items| items.map(Value::text).collect::<Vec<_>>());
        let list: Option<Vec<&RawValue>> = serde_json::from_str(value.text()).ok();
        let list = list.map(|list| list.into_iter().map(RawValue::get).collect());
        assert_eq!(items, list, "{text:?}");
        let Some(members) = value.members() else {
            return;
        };
        let sent: Vec<(Option<String>, &str)> = members
            .map(|(name, value)| (name.map(Cow::into_owned), value.text()))
            .collect();
        // A map keeps the last of equal names.
        let map: Option<std::collections::HashMap<String, &RawValue>> =
            serde_json::from_str(value.text()).ok();
        assert_eq!(
            map.is_some(),
            sent.iter().all(|(name, _)| name.is_some()),
            "{text:?}"
        );
        for (name, raw) in map.into_iter().flatten() {
            let last = sent.iter().rfind(|(other, _)| *other == Some(name.clone()));
            assert_eq!(last.map(|(_, text)| *text), Some(raw.get()), "{text:?}");
        }
    }

    #[test]
    fn json_is_read_as_serde_json_reads_it() {
        let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        for text in [
            "",
            " ",
            "{",
            "}",
            "[",
            "]",
            "{}",
            "[]",
            " {} ",
            "{}x",
            "{} {}",
            "[,]",
            "[1,]",
            "[1 2]",
            "{,}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{\"a\":1 \"b\":2}",
            "{a:1}",
            "{'a':1}",
            "{\"a\":1,\"a\":2}",
            "{ \"a\" : { \"b\" : [ 1 , { } , \"x\" ] } , \"c\" : null }",
            "{\"a\":[{}]}",
            "[{]}",
            "[}",
            "{]",
            "[[1],[2]",
            "{\"a\":1]",
            "true",
            "tru",
            "truex",
            "nul",
            "null",
            "false",
            "-",
            "-0",
            "0",
            "00",
            "01",
            "-01",
            "1.",
            "1.0",
            ".5",
            "1e5",
            "1E+5",
            "1e-5",
            "1e",
            "1e+",
            "+1",
            "1.5e5",
            "1x",
            "NaN",
            "Infinity",
            "9e999",
            "123456789012345678901234567890",
            "\"",
            "\"a",
            "\"a\"",
            "\"\\\"",
            "\"\\\\\"",
            "\"\\x\"",
            "\"\\u00e9\"",
            "\"\\u00E9x\"",
            "\"\\u00g9\"",
            "\"\\u00e\"",
            "\"\\ud83d\\ude00!\"",
            "\"\\ud83d\"",
            "\"\\ud83dx\"",
            "\"\\ude00\"",
            "\"\\ud83d\\ud83d\"",
            "\"\\ud83d\\n\"",
            "\"\\b\\f\\n\\r\\t\\/\"",
            "\"a\nb\"",
            "\"\u{7f}\"",
            "\"\u{0}\"",
            "\"é😀\"",
            "\u{feff}{}",
            "\u{a0}{}",
            "/**/{}",
            "{\"\\ud83d\":1}",
            "{\"\\u0061\":1}",
            "{\"a\":\"\\ud83d\"}",
            &deep(100),
            &(deep(100) + "]"),
            "[\"]\"]",
            "{\"}\":\"{\"}",
            "\"\\u+123\"",
        ] {
            agrees(text);
        }
    }

    #[test]
    fn no_depth_of_nesting_is_too_much() {
        let text = "[".repeat(1_000_000);
        assert_eq!(parse(&text), Err(Invalid { at: 1_000_000 }));
        assert!(parse(&(text.clone() + &"]".repeat(1_000_000))).is_ok());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, at) in [
            ("", 0),
            ("{\"a\" 1}", 5),
            ("[1,]", 3),
            ("{} x", 3),
            ("nulL", 3),
        ] {
            assert_eq!(parse(text), Err(Invalid { at }), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_as_serde_json_reads_it(
            parts in proptest::collection::vec(
                prop_oneof![
                    Just("{"), Just("}"), Just("["), Just("]"), Just(","), Just(":"), Just("\""),
                    Just("\\"), Just("\"a\""), Just("\"b\":"), Just(" "), Just("1"), Just("-2.5e3"),
                    Just("true"), Just("null"), Just("u00e9"), Just("ud83d"), Just("ude00"), Just("é"),
                ],
                0..24,
            )
        ) {
            agrees(&parts.concat());
        }
    }
}
