//! Text compared without its case.

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
    text.chars()
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
        .collect()
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
