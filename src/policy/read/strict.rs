//! A strict reader of TOML that collects every mistake with its place.
//!
//! Reading never stops: a wrong value is noted and read as absent, so that one run of the check
//! tells everything that is wrong.

use std::{borrow::Cow, cell::RefCell, fmt};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{credits::Credits, price::Quantity};

/// Everything that is wrong with a policy, in the order of the file; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(Vec<Mistake>);

/// One thing that is wrong: `routes[3].cost: expected …, found …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    offset: usize,
    place: String,
    message: String,
}

impl Mistakes {
    /// The mistakes one by one.
    pub fn iter(&self) -> impl Iterator<Item = &Mistake> {
        self.0.iter()
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            let line_break = if index == 0 { "" } else { "\n" };
            write!(formatter, "{line_break}policy.toml: {mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

impl fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.message)
    }
}

/// Where mistakes are noted while reading.
#[derive(Debug, Default)]
pub(super) struct Notes(RefCell<Vec<Mistake>>);

impl Notes {
    fn add(&self, offset: usize, place: &str, message: String) {
        self.0.borrow_mut().push(Mistake {
            offset,
            place: place.to_owned(),
            message,
        });
    }

    /// What was noted, if anything was.
    pub(super) fn into_mistakes(self) -> Option<Mistakes> {
        let mut mistakes = self.0.into_inner();
        mistakes.sort_by_key(|mistake| mistake.offset);
        (!mistakes.is_empty()).then_some(Mistakes(mistakes))
    }
}

/// Parses the syntax.
///
/// # Errors
///
/// Syntax errors with line and column.
pub(super) fn parse(text: &str) -> Result<Spanned<DeTable<'_>>, Mistakes> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(table);
    }
    let notes = Notes::default();
    for error in errors {
        let offset = error.span().map_or(text.len(), |span| span.start);
        notes.add(
            offset,
            &line_and_column(text, offset),
            error.message().to_owned(),
        );
    }
    notes.into_mistakes().map_or(Ok(table), Err)
}

/// Counted from 1, columns in characters.
fn line_and_column(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count().saturating_add(1);
    let column = before
        .rsplit('\n')
        .next()
        .map_or(0, |last| last.chars().count())
        .saturating_add(1);
    format!("line {line}, column {column}")
}

/// A table of which each field is taken once; [`Table::finish`] notes the fields left over.
pub(super) struct Table<'a> {
    fields: &'a DeTable<'a>,
    place: String,
    offset: usize,
    notes: &'a Notes,
    known: Vec<&'static str>,
}

impl<'a> Table<'a> {
    /// The whole document.
    pub(super) fn of_document(document: &'a Spanned<DeTable<'a>>, notes: &'a Notes) -> Self {
        Self {
            fields: document.get_ref(),
            place: String::new(),
            offset: document.span().start,
            notes,
            known: Vec::new(),
        }
    }

    /// The field `name`, if it is there.
    pub(super) fn take(&mut self, name: &'static str) -> Option<Value<'a>> {
        if !self.known.contains(&name) {
            self.known.push(name);
        }
        self.get(name)
    }

    /// The field `name`; a mistake where it is missing.
    pub(super) fn require(&mut self, name: &'static str, expected: &str) -> Option<Value<'a>> {
        let value = self.take(name);
        if value.is_none() {
            self.note(name, expected, "nothing");
        }
        value
    }

    /// Notes that the field `name` should be other than it is.
    pub(super) fn note(&self, name: &str, expected: &str, found: &str) {
        let offset = self.get(name).map_or(self.offset, |value| value.offset());
        let place = join(&self.place, name);
        self.notes.add(
            offset,
            &place,
            format!("expected {expected}, found {found}"),
        );
    }

    /// Notes the field `name` as a mistake if it is there.
    pub(super) fn forbid(&self, name: &str, expected: &str) {
        if let Some(value) = self.get(name) {
            value.wrong(expected);
        }
    }

    /// Every field with its name, where names are free.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a str, Value<'a>)> + '_ {
        self.fields
            .iter()
            .map(|(name, value)| (name.get_ref().as_ref(), self.value(name.get_ref(), value)))
    }

    /// Notes the fields that nobody took.
    pub(super) fn finish(self) {
        for (name, value) in self.fields {
            let found = name.get_ref().as_ref();
            if self.known.contains(&found) {
                continue;
            }
            let place = join(&self.place, found);
            let hint = match self.known.iter().find(|known| is_slip(known, found)) {
                Some(known) => format!("; did you mean {known}?"),
                None => String::new(),
            };
            let expected = self.known.join(", ");
            let message = format!("expected one of {expected}, found an unknown field{hint}");
            self.notes
                .add(name.span().start.min(value.span().start), &place, message);
        }
    }

    fn get(&self, name: &str) -> Option<Value<'a>> {
        let value = self.fields.get(name)?;
        Some(self.value(name, value))
    }

    fn value(&self, name: &str, value: &'a Spanned<DeValue<'a>>) -> Value<'a> {
        Value {
            value,
            place: join(&self.place, name),
            notes: self.notes,
        }
    }
}

/// A value with its place.
pub(super) struct Value<'a> {
    value: &'a Spanned<DeValue<'a>>,
    place: String,
    notes: &'a Notes,
}

impl<'a> Value<'a> {
    /// Notes what was expected instead.
    pub(super) fn wrong(&self, expected: &str) {
        let found = self.shown();
        self.say(&format!("expected {expected}, found {found}"));
    }

    /// Notes a mistake in its own words.
    pub(super) fn say(&self, message: &str) {
        self.notes
            .add(self.offset(), &self.place, message.to_owned());
    }

    fn offset(&self) -> usize {
        self.value.span().start
    }

    /// A string.
    pub(super) fn text(&self, expected: &str) -> Option<&'a str> {
        self.if_some(self.as_text(), expected)
    }

    /// A string that `read` understands.
    pub(super) fn parsed<T>(
        &self,
        expected: &str,
        read: impl FnOnce(&'a str) -> Option<T>,
    ) -> Option<T> {
        self.if_some(self.as_text().and_then(read), expected)
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let found = self.as_text();
        let known = words.iter().find(|(word, _)| Some(*word) == found);
        self.if_some(known.map(|(_, meaning)| *meaning), &one_of(words))
    }

    /// `true` or `false`.
    pub(super) fn flag(&self) -> Option<bool> {
        self.if_some(self.as_flag(), "true or false")
    }

    /// A whole number within bounds.
    pub(super) fn whole(&self, least: u64, most: u64) -> Option<u64> {
        let number = self
            .as_whole()
            .filter(|number| (least..=most).contains(number));
        self.if_some(number, &format!("a whole number from {least} to {most}"))
    }

    /// A whole number of credits, at least `least`.
    pub(super) fn credits(&self, least: u64) -> Option<Credits> {
        self.whole(least, Credits::MAX.get()).and_then(Credits::new)
    }

    /// A whole number within bounds that fits 32 bits.
    pub(super) fn count(&self, least: u32) -> Option<u32> {
        self.whole(least.into(), u32::MAX.into())
            .and_then(|number| number.try_into().ok())
    }

    /// A plain decimal, not negative, with at most three places.
    pub(super) fn quantity(&self) -> Option<Quantity> {
        match self.value.get_ref() {
            DeValue::Integer(number) if number.radix() == 10 => Quantity::parse(number.as_str()),
            DeValue::Float(number) => Quantity::parse(number.as_str()),
            _ => None,
        }
    }

    /// A table.
    pub(super) fn table(&self) -> Option<Table<'a>> {
        let fields = self.if_some(self.value.get_ref().as_table(), "a table")?;
        Some(Table {
            fields,
            place: self.place.clone(),
            offset: self.offset(),
            notes: self.notes,
            known: Vec::new(),
        })
    }

    /// A field of a table, without a mistake where there is none.
    pub(super) fn field(&self, name: &str) -> Option<Self> {
        let value = self.value.get_ref().as_table()?.get(name)?;
        Some(Self {
            value,
            place: join(&self.place, name),
            notes: self.notes,
        })
    }

    /// An array's values.
    pub(super) fn list(&self, expected: &str) -> Option<impl Iterator<Item = Value<'a>> + use<'a>> {
        self.if_some(self.as_list(), expected)
    }

    /// The same, without a mistake where it is no array.
    pub(super) fn as_list(&self) -> Option<impl Iterator<Item = Value<'a>> + use<'a>> {
        let array = self.value.get_ref().as_array()?;
        let (place, notes) = (self.place.clone(), self.notes);
        Some(array.iter().enumerate().map(move |(index, value)| Value {
            value,
            place: format!("{place}[{index}]"),
            notes,
        }))
    }

    /// The string, without a mistake where it is none.
    pub(super) fn as_text(&self) -> Option<&'a str> {
        self.value.get_ref().as_str()
    }

    /// The flag, without a mistake where it is none.
    pub(super) fn as_flag(&self) -> Option<bool> {
        self.value.get_ref().as_bool()
    }

    /// The whole number, without a mistake where it is none.
    pub(super) fn as_whole(&self) -> Option<u64> {
        let number = self.value.get_ref().as_integer()?;
        u64::from_str_radix(number.as_str(), number.radix()).ok()
    }

    /// The value as a message shows it.
    fn shown(&self) -> Cow<'static, str> {
        match self.value.get_ref() {
            DeValue::String(text) if text.chars().count() > 60 => "a longer string".into(),
            DeValue::String(text) => format!("{text:?}").into(),
            DeValue::Integer(number) => number.to_string().into(),
            DeValue::Float(number) => number.to_string().into(),
            DeValue::Boolean(flag) => flag.to_string().into(),
            DeValue::Datetime(_) => "a date".into(),
            DeValue::Array(_) => "an array".into(),
            DeValue::Table(_) => "a table".into(),
        }
    }

    fn if_some<T>(&self, read: Option<T>, expected: &str) -> Option<T> {
        if read.is_none() {
            self.wrong(expected);
        }
        read
    }
}

/// `"a", "b" or "c"`.
fn one_of<T>(words: &[(&str, T)]) -> String {
    let quoted: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

/// `place.name`, the name in quotes where TOML wants them.
fn join(place: &str, name: &str) -> String {
    let is_bare = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let name = if is_bare {
        name.to_owned()
    } else {
        format!("{name:?}")
    };
    if place.is_empty() {
        name
    } else {
        format!("{place}.{name}")
    }
}

/// Whether `found` looks like `known` with a slip of the keyboard: the same but for two
/// characters next to each other at most.
fn is_slip(known: &str, found: &str) -> bool {
    let longer = known.len().max(found.len());
    let shorter = known.len().min(found.len());
    let same = |pairs: &mut dyn Iterator<Item = (u8, u8)>| {
        pairs.take_while(|(one, other)| one == other).count()
    };
    let start = same(&mut known.bytes().zip(found.bytes()));
    let end = same(&mut known.bytes().rev().zip(found.bytes().rev()));
    shorter > 2 && start.saturating_add(end).min(shorter).saturating_add(2) >= longer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_keyboard_is_recognised() {
        for (known, found, slip) in [
            ("requests_per_day", "request_per_day", true),
            ("requests_per_day", "requests_per_dya", true),
            ("charge_on", "chargeon", true),
            ("pool", "pools", true),
            ("pool", "cost", false),
            ("requests_per_minute", "requests_per_day", false),
            ("job", "jobs", true),
            ("me", "mx", false),
        ] {
            assert_eq!(is_slip(known, found), slip, "{known} {found}");
        }
    }
}
