//! A field of the query string.

use super::Stop;
use crate::{caseless, url::decode_form};

/// The value of the field `name`, decoded; `None` where it is absent.
///
/// # Errors
///
/// The field is there twice, once in another case or spelling, or beside a `;`, at which some origins part
/// fields as at a `&` (HTML 4.01 §B.2.2).
pub(super) fn look_up(query: &str, name: &str) -> Result<Option<String>, Stop> {
    let mut value = None;
    for pair in query.split('&') {
        for part in pair.split(';') {
            #[cfg(test)]
            crate::steps::count();
            let (key, text) = part.split_once('=').unwrap_or((part, ""));
            let key = decode_form(key);
            if !may_be_read_as(&key, name) {
                continue;
            }
            if key != name {
                return Err(Stop::bad(format!(
                    "query.{name} must be spelled just so, not {key:?}"
                )));
            }
            if value.is_some() || part.len() < pair.len() {
                return Err(Stop::bad(format!(
                    "query.{name} must be given once, with no ; beside it"
                )));
            }
            value = Some(decode_form(text));
        }
    }
    Ok(value)
}

/// Whether an origin may take the field `key` for `name`. Case aside, many read `n[]=60` and `n[0]=60` as `n`,
/// in place of an `n=5` or along with it, and pass over space before a name; PHP has no `.`, space or lone
/// `[` in a name, and reads `_`.
fn may_be_read_as(key: &str, name: &str) -> bool {
    let trimmed = key.trim();
    let list = match trimmed.find('[') {
        Some(bracket) if bracket > 0 => trimmed.get(..bracket).unwrap_or(trimmed).trim_end(),
        _ => trimmed,
    };
    const NO_LETTER_IN_PHP: [char; 3] = ['.', ' ', '['];
    let in_php = |key: &str| key.replace(NO_LETTER_IN_PHP, "_");
    caseless::same(key, name)
        || caseless::same(list, name)
        || [key, name]
            .iter()
            .any(|text| text.contains(NO_LETTER_IN_PHP))
            && [trimmed, list]
                .iter()
                .any(|read| caseless::same(&in_php(read), &in_php(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_field_is_found_however_it_is_encoded() {
        for (query, value) in [
            ("", None),
            ("other=1", None),
            ("minutes=5", Some("5")),
            ("a=1&minutes=5&b", Some("5")),
            ("m%69nutes=%35", Some("5")),
            ("minutes", Some("")),
            ("minutes=5+1", Some("5 1")),
            ("minutes=5%", Some("5%")),
            ("minutes=a=b", Some("a=b")),
        ] {
            assert_eq!(
                look_up(query, "minutes"),
                Ok(value.map(str::to_owned)),
                "{query}"
            );
        }
    }

    #[test]
    fn a_name_may_have_brackets_of_its_own() {
        assert_eq!(
            look_up("page[size]=5", "page[size]"),
            Ok(Some("5".to_owned()))
        );
    }

    #[test]
    fn a_query_field_there_twice_or_in_another_case_is_refused() {
        for query in [
            "minutes=5&minutes=5",
            "minutes=5&m%69nutes=60",
            "Minutes=5",
            "minutes=5&MINUTES=60",
            "minute%C5%BF=60",
            "minutes=5&minutes[]=60",
            "minutes=5&minutes%5B0%5D=60",
            "minutes[]=5",
            "minutes=5&+minutes=60",
            "minutes=5&%20Minutes[x]=60",
            "minutes=5;minutes=60",
            "a=b;minutes=60&minutes=5",
            "a;Minutes=60&minutes=5",
            "minutes=5;",
        ] {
            assert!(
                matches!(look_up(query, "minutes"), Err(Stop::Bad(_))),
                "{query}"
            );
        }
    }

    #[test]
    fn a_name_that_php_reads_as_the_fields_is_refused() {
        for query in [
            "max_minutes=5&max.minutes=60",
            "max_minutes=5&max+minutes=60",
            "max_minutes=5&max[minutes=60",
            "max_minutes=5&Max%2Eminutes[]=60",
            "max.minutes=5",
        ] {
            assert!(
                matches!(look_up(query, "max_minutes"), Err(Stop::Bad(_))),
                "{query}"
            );
        }
        for (query, name) in [
            ("max_minutes=5&max[minutes]=60&maxminutes=60", "max_minutes"),
            ("max.minutes=5", "max.minutes"),
            ("max-minutes=60&minutes=5;a=b", "max_minutes"),
        ] {
            assert!(look_up(query, name).is_ok(), "{query}");
        }
    }
}
