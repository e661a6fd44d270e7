//! What customers are told by e-mail: plain text, in a few sentences.

/// Whether `text` is one plain e-mail address (RFC 5321 §4.1.2: a dot-string and a domain), which
/// nothing can be added to: no list, no display name, no quotes.
#[must_use]
pub fn is_address(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else {
        return false;
    };
    let is_atom = |part: &str| {
        let is_atext =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte);
        !part.is_empty() && part.bytes().all(is_atext)
    };
    let is_label = |part: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !part.is_empty() && part.len() <= 63 && part.bytes().all(is_plain)
    };
    local.len() <= 64
        && local.split('.').all(is_atom)
        && domain.len() <= 253
        && domain.contains('.')
        && domain.split('.').all(is_label)
}
