//! A strict reader of JSON bodies. Whatever is wrong is told with its field: what was expected
//! and what was found.
//!
//! Members are kept as they are spelled until their type is known, so that a field that is there
//! twice, `1.0` for `1` and a number too large for any type are all seen.

use crate::{
    json,
    price::Quantity,
    problem::{Code, Problem},
    time::Timestamp,
};

/// How much of what was sent is repeated in an answer.
const SHOWN_CHARACTERS: usize = 64;
/// What [`is_control`] is true for, for people.
pub(super) const CONTROLS: &str = "control or bidirectional formatting characters";
/// The longest name that a body asks for something by, in characters.
const LINE_MAX: usize = 200;

/// An object whose members all have known names, each once.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    /// What stands before a member's name: nothing, or `subscription.`.
    place: String,
    members: Vec<(String, json::Value<'a>)>,
}

impl<'a> Fields<'a> {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// It is no JSON object, or has a member twice or one that is not `known`.
    pub(super) fn parse(body: &'a [u8], known: &[&str]) -> Result<Self, Problem> {
        let bad = |detail: String| Problem::new(Code::BadRequest, detail);
        let text = std::str::from_utf8(body)
            .map_err(|_| bad("the body must be JSON in UTF-8".to_owned()))?;
        if text.is_empty() {
            return Err(bad("the body must be a JSON object, not empty".to_owned()));
        }
        let object = json::parse(text).map_err(|invalid| not_json(&invalid.to_string()))?;
        Self::of(object, String::new(), Some(known))?.ok_or_else(|| {
            let found = found(Some(object.text()));
            bad(format!("the body must be a JSON object, not {found}"))
        })
    }

    /// An object without members: what no body stands for where none is needed.
    pub(super) const fn none() -> Self {
        Self {
            place: String::new(),
            members: Vec::new(),
        }
    }

    /// The member `name`, there or not.
    pub(super) fn get(&self, name: &str) -> Value<'a> {
        let member = self.members.iter().find(|(other, _)| other == name);
        Value {
            place: format!("{}{name}", self.place),
            sent: member.map(|(_, value)| *value),
        }
    }

    /// `None` for what is no object. Where no names are `known`, any will do.
    fn of(
        object: json::Value<'a>,
        place: String,
        known: Option<&[&str]>,
    ) -> Result<Option<Self>, Problem> {
        let Some(sent) = object.members() else {
            return Ok(None);
        };
        let mut members: Vec<(String, json::Value<'_>)> = Vec::new();
        for (name, value) in sent {
            let name = name.ok_or_else(|| not_json("a member's name is no text"))?;
            members.push((name.into_owned(), value));
        }
        for (index, (name, _)) in members.iter().enumerate() {
            let field = format!("{place}{}", shortened(name));
            if let Some(known) = known.filter(|known| !known.contains(&name.as_str())) {
                let known = if known.is_empty() {
                    "none".to_owned()
                } else {
                    format!("only {}", known.join(", "))
                };
                let detail = format!("{field}: unknown field, expected {known}");
                return Err(Problem::bad_field(field, detail));
            }
            if members
                .iter()
                .take(index)
                .any(|(earlier, _)| earlier == name)
            {
                let detail = format!("{field}: expected once, found twice");
                return Err(Problem::bad_field(field, detail));
            }
        }
        Ok(Some(Self { place, members }))
    }
}

/// What a member holds, if it is there.
#[derive(Debug)]
pub(super) struct Value<'a> {
    place: String,
    sent: Option<json::Value<'a>>,
}

impl Value<'_> {
    /// `None` where the member is absent.
    pub(super) fn given(self) -> Option<Self> {
        self.sent.is_some().then_some(self)
    }

    /// `None` where the member is absent or null.
    pub(super) fn not_null(self) -> Option<Self> {
        self.raw().is_some_and(|raw| raw != "null").then_some(self)
    }

    /// What the member is read as, or that `expected` was expected.
    ///
    /// # Errors
    ///
    /// It is no text, or `read` cannot read it.
    pub(super) fn text<T>(
        &self,
        expected: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, Problem> {
        self.sent
            .and_then(json::Value::string)
            .and_then(|text| read(&text))
            .ok_or_else(|| self.problem(expected))
    }

    /// 1 to `most` characters for people to read.
    ///
    /// # Errors
    ///
    /// Anything else.
    pub(super) fn line(&self, most: usize) -> Result<String, Problem> {
        self.text(
            &format!("a text of 1 to {most} characters, no {CONTROLS} among them"),
            |text| {
                let fits = (1..=most).contains(&text.chars().count());
                (fits && !text.contains(is_control)).then(|| text.to_owned())
            },
        )
    }

    /// One of these words.
    ///
    /// # Errors
    ///
    /// Anything else.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, Problem> {
        let list: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        self.text(&list.join(" or "), |text| {
            let word = words.iter().find(|(word, _)| *word == text);
            word.map(|(_, meaning)| *meaning)
        })
    }

    /// A number from `least` to `most`, written in digits alone: `1.0` and `1e2` are none.
    ///
    /// # Errors
    ///
    /// Anything else.
    pub(super) fn whole<T: TryFrom<u64>>(&self, least: u64, most: u64) -> Result<T, Problem> {
        self.raw()
            .filter(|raw| raw.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|raw| raw.parse::<u64>().ok())
            .filter(|number| (least..=most).contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| self.problem(&format!("a whole number from {least} to {most}")))
    }

    /// A number other than 0 from `-most` to `most`, written in digits alone: whether it is
    /// negative, and its size.
    ///
    /// # Errors
    ///
    /// Anything else.
    pub(super) fn signed(&self, most: u64) -> Result<(bool, u64), Problem> {
        let raw = self.raw().unwrap_or("");
        let (is_negative, digits) = match raw.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, raw),
        };
        Some(digits)
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse::<u64>().ok())
            .filter(|size| (1..=most).contains(size))
            .map(|size| (is_negative, size))
            .ok_or_else(|| {
                self.problem(&format!("a whole number from -{most} to {most}, and not 0"))
            })
    }

    /// A plain decimal number with at most 3 places.
    ///
    /// # Errors
    ///
    /// Anything else.
    pub(super) fn quantity(&self) -> Result<Quantity, Problem> {
        self.raw()
            .and_then(Quantity::parse)
            .ok_or_else(|| self.problem("a plain decimal number with at most 3 places"))
    }

    /// `true` or `false`.
    ///
    /// # Errors
    ///
    /// Anything else.
    pub(super) fn flag(&self) -> Result<bool, Problem> {
        match self.raw() {
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            _ => Err(self.problem("true or false")),
        }
    }

    /// A date and time.
    ///
    /// # Errors
    ///
    /// Anything else.
    pub(super) fn time(&self) -> Result<Timestamp, Problem> {
        self.text(
            "a date and time as in RFC 3339, 2026-12-01T00:00:00Z",
            Timestamp::parse_rfc3339,
        )
    }

    /// That something else was expected here.
    pub(super) fn problem(&self, expected: &str) -> Problem {
        let place = &self.place;
        let detail = format!("{place}: expected {expected}, found {}", found(self.raw()));
        Problem::bad_field(place, detail)
    }
}

impl<'a> Value<'a> {
    /// The member as it was sent.
    fn raw(&self) -> Option<&'a str> {
        self.sent.map(json::Value::text)
    }

    /// An object with these members.
    ///
    /// # Errors
    ///
    /// Anything else, a member that is there twice or is not `known`.
    pub(super) fn fields(&self, known: &[&str]) -> Result<Fields<'a>, Problem> {
        let place = format!("{}.", self.place);
        let fields = match self.sent {
            Some(sent) => Fields::of(sent, place, Some(known))?,
            None => None,
        };
        fields.ok_or_else(|| self.problem("an object"))
    }

    /// An object of 1 to `most` members, whose names are free.
    ///
    /// # Errors
    ///
    /// Anything else, or a member that is there twice.
    pub(super) fn entries(&self, most: usize) -> Result<Vec<(String, Self)>, Problem> {
        let place = format!("{}.", self.place);
        let fields = match self.sent {
            Some(sent) => Fields::of(sent, place, None)?,
            None => None,
        };
        let fields = fields.filter(|fields| (1..=most).contains(&fields.members.len()));
        let fields =
            fields.ok_or_else(|| self.problem(&format!("an object of 1 to {most} members")))?;
        let entry = |(name, _): &(String, _)| (name.clone(), fields.get(name));
        Ok(fields.members.iter().map(entry).collect())
    }

    /// A list of 1 to `most` items.
    ///
    /// # Errors
    ///
    /// Anything else.
    pub(super) fn list(&self, most: usize) -> Result<Vec<Self>, Problem> {
        let sent = self.sent.and_then(json::Value::items);
        let items: Vec<Self> = sent
            .into_iter()
            .flatten()
            .enumerate()
            .map(|(index, item)| Value {
                place: format!("{}[{index}]", self.place),
                sent: Some(item),
            })
            .collect();
        if (1..=most).contains(&items.len()) {
            Ok(items)
        } else {
            Err(self.problem(&format!("a list of 1 to {most} items")))
        }
    }
}

/// Reads a body whose one member is a text of one line.
///
/// # Errors
///
/// Anything else.
pub(crate) fn only_line(body: &[u8], name: &str) -> Result<String, Problem> {
    Fields::parse(body, &[name])?.get(name).line(LINE_MAX)
}

/// Reads a body that has nothing to say: none, or an empty object.
///
/// # Errors
///
/// Anything else.
pub(crate) fn nothing(body: &[u8]) -> Result<(), Problem> {
    if body.is_empty() {
        return Ok(());
    }
    Fields::parse(body, &[]).map(|_| ())
}

/// Whether a character has no place in a line that people read: Unicode's control characters (general
/// category Cc), and those that embed, override or isolate a direction, U+202A to U+202E and U+2066 to
/// U+2069 (UAX #9 §2.1 to §2.5), with which a name reads as another one. The marks U+061C, U+200E and
/// U+200F stay: names in Arabic and Hebrew need them, and they turn nothing around.
pub(super) fn is_control(character: char) -> bool {
    character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn not_json(why: &str) -> Problem {
    Problem::new(Code::BadRequest, format!("the body must be JSON: {why}"))
}

/// What stands there, for people.
fn found(raw: Option<&str>) -> String {
    let Some(raw) = raw else {
        return "nothing".to_owned();
    };
    match raw.as_bytes().first() {
        Some(b'{') => "an object".to_owned(),
        Some(b'[') => "a list".to_owned(),
        _ => shortened(raw),
    }
}

/// What was sent, as far as an answer repeats it.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
