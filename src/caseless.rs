//! Text compared without its case.

use self::table::{RUNS, SEVERAL};

mod table;

/// `text` with its case taken away: two texts that a case-blind reader takes for the same have
/// the same folded form.
///
/// Upper case first, then lower: `ſ` and the Kelvin sign are lower and upper case of letters
/// that they do not look like, and some JSON readers take them for `s` and `k`.
#[must_use]
pub fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let mut folded = String::with_capacity(text.len());
    for character in text.chars() {
        if let Ok(at) = SEVERAL.binary_search_by_key(&character, |(folds, _)| *folds) {
            folded.extend(SEVERAL.get(at).map(|(_, to)| *to));
        } else {
            folded.push(fold_to_one(character));
        }
    }
    folded
}

/// Not Rust's own upper and lower case: their tables would be a twentieth of the bundle.
fn fold_to_one(character: char) -> char {
    if character.is_ascii() {
        return character.to_ascii_lowercase();
    }
    let number = u32::from(character);
    let after = RUNS.partition_point(|(first, ..)| *first <= number);
    after
        .checked_sub(1)
        .and_then(|at| RUNS.get(at))
        .filter(|(first, last, every, _)| {
            let along = number.abs_diff(*first).checked_rem(*every);
            number <= *last && along == Some(0)
        })
        .and_then(|(.., away)| number.checked_add_signed(*away))
        .and_then(char::from_u32)
        .unwrap_or(character)
}

/// Whether `one` and `other` differ at most in case.
#[must_use]
pub fn same(one: &str, other: &str) -> bool {
    one == other || fold(one) == fold(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_folds_as_upper_then_lower_case_would() {
        for character in '\0'..=char::MAX {
            let cased: String = character
                .to_uppercase()
                .flat_map(char::to_lowercase)
                .collect();
            assert_eq!(fold(&character.to_string()), cased, "{character:?}");
        }
    }

    #[test]
    fn letters_that_only_look_different_are_the_same() {
        for (one, other) in [
            ("Minutes", "minutes"),
            ("MINUTES", "minutes"),
            ("minute\u{17f}", "minutes"),
            ("\u{212a}ind", "kind"),
            ("ÄRGER", "ärger"),
        ] {
            assert!(same(one, other), "{one} {other}");
        }
        assert!(!same("minutes", "minute"));
        assert!(!same("max_minutes", "maxminutes"));
    }
}
