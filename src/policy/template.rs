//! Path templates: `/tracks/{id}/preview`, `/hooks/*`.

use crate::path::{self, CanonicalPath};

/// A path template, segment by segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    segments: Vec<Segment>,
}

/// One segment of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    /// Itself: the canonical spelling, and what a reader blind to case takes it for.
    Literal { exact: String, folded: String },
    /// `{name}`: any one segment that is not empty.
    Name,
    /// A closing `*`: whatever follows the `/` before it, be it nothing.
    Rest,
}

impl Template {
    /// Reads a template that starts with `/`.
    ///
    /// # Errors
    ///
    /// What was expected instead, to follow "expected".
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.starts_with('/') {
            return Err("a template that starts with /".into());
        }
        let mut segments = Vec::new();
        let mut names = Vec::new();
        let mut after_rest = false;
        for segment in path::segments(text) {
            if after_rest {
                return Err("* only as the last segment".into());
            }
            segments.push(match name_of(segment) {
                Some(name) if names.contains(&name) => {
                    return Err(format!("each name once, {{{name}}} is there twice"));
                }
                Some(name) => {
                    names.push(name);
                    Segment::Name
                }
                None if segment == "*" => {
                    after_rest = true;
                    Segment::Rest
                }
                None => literal(segment)?,
            });
        }
        // An empty segment is right at the end alone, which one by one they do not show.
        if text.contains("//") {
            return Err("a template without //".into());
        }
        Ok(Self { segments })
    }

    /// This template under `base_path`, which has no closing `/`.
    #[must_use]
    pub(super) fn under(mut self, base_path: &str) -> Self {
        let base = base_path.strip_prefix('/').map(|base| base.split('/'));
        let base = base
            .into_iter()
            .flatten()
            .filter_map(|segment| literal(segment).ok());
        self.segments.splice(0..0, base);
        self
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Whether the path is one of the template's.
    #[must_use]
    pub fn matches(&self, path: &CanonicalPath) -> bool {
        let mut path = path.segments();
        for segment in &self.segments {
            #[cfg(test)]
            crate::steps::count();
            let Some(found) = path.next() else {
                return false;
            };
            let fits = match segment {
                Segment::Literal { exact, .. } => exact == found,
                Segment::Name => !found.is_empty(),
                Segment::Rest => return true,
            };
            if !fits {
                return false;
            }
        }
        path.next().is_none()
    }

    /// Whether every path of `other` is one of this template's too.
    #[must_use]
    pub(super) fn covers(&self, other: &Self) -> bool {
        let mut theirs = other.segments.iter();
        for segment in &self.segments {
            #[cfg(test)]
            crate::steps::count();
            let covered = match (segment, theirs.next()) {
                (_, None) => false,
                (Segment::Rest, Some(_)) => return true,
                (Segment::Name, Some(Segment::Literal { exact, .. })) => !exact.is_empty(),
                (Segment::Name, Some(Segment::Name)) => true,
                (Segment::Literal { .. }, Some(other)) => segment == other,
                (Segment::Name, Some(Segment::Rest)) => false,
            };
            if !covered {
                return false;
            }
        }
        theirs.next().is_none()
    }

    /// Whether this template is at least as explicit as `other` wherever that one is: who wrote
    /// both meant to tell them apart, by case or by the closing `/`.
    pub(super) fn spells(&self, other: &Self) -> bool {
        let mut ours = self.segments.iter();
        other
            .segments
            .iter()
            .all(|theirs| match (theirs, ours.next()) {
                (Segment::Rest, _) | (_, Some(Segment::Literal { .. })) => true,
                (_, Some(Segment::Rest)) => false,
                (Segment::Name, Some(Segment::Name) | None) => true,
                (Segment::Literal { exact, .. }, Some(Segment::Name) | None) => exact.is_empty(),
            })
    }

    /// Whether the template names no path but one.
    pub(super) fn is_literal(&self) -> bool {
        self.segments
            .iter()
            .all(|segment| matches!(segment, Segment::Literal { .. }))
    }

    /// Whether the template stands at or under `/_tollgate`, in whatever case.
    pub(super) fn is_admin(&self) -> bool {
        matches!(self.segments.first(), Some(Segment::Literal { folded, .. }) if folded == "_tollgate")
    }

    /// Whether the literal path `page` is one of the template's, to a reader blind to case and
    /// a closing `/`. A closing `*` means what is left over and takes nobody's path.
    pub(super) fn takes(&self, page: &Self) -> bool {
        let (ours, theirs) = (self.without_closing_slash(), page.without_closing_slash());
        ours.len() == theirs.len()
            && ours.iter().zip(theirs).all(|pair| match pair {
                (Segment::Literal { folded, .. }, Segment::Literal { folded: other, .. }) => {
                    folded == other
                }
                (Segment::Name, _) => true,
                (Segment::Literal { .. } | Segment::Rest, _) => false,
            })
    }

    fn without_closing_slash(&self) -> &[Segment] {
        match self.segments.split_last() {
            Some((Segment::Literal { exact, .. }, before)) if exact.is_empty() => before,
            _ => &self.segments,
        }
    }
}

/// The other spelling of a path that some servers do not tell apart: with or without a closing
/// `/`. The path `/` has none.
pub(super) fn toggle_slash(path: &str) -> String {
    match path.strip_suffix('/') {
        Some("") => path.to_owned(),
        Some(without) => without.to_owned(),
        None => format!("{path}/"),
    }
}

fn name_of(segment: &str) -> Option<&str> {
    let name = segment.strip_prefix('{')?.strip_suffix('}')?;
    let is_name = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_name.then_some(name)
}

fn literal(segment: &str) -> Result<Segment, String> {
    if segment.contains(['{', '}']) {
        return Err("{name} (letters, digits and _) as a whole segment".into());
    }
    if segment.contains('*') {
        return Err("* only as a whole segment, the last".into());
    }
    let path = CanonicalPath::parse(&format!("/{segment}"))
        .map_err(|bad| format!("another path: {bad}"))?;
    let exact = path.as_str().strip_prefix('/').unwrap_or_default();
    if exact != segment {
        return Err(format!("the canonical spelling {exact:?} of {segment:?}"));
    }
    Ok(Segment::Literal {
        exact: exact.to_owned(),
        folded: path.folded().trim_start_matches('/').to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> Template {
        Template::parse(text).unwrap()
    }

    #[test]
    fn a_template_matches_segment_by_segment() {
        for (text, path, matches) in [
            ("/", "/", true),
            ("/", "/a", false),
            ("/search", "/search", true),
            ("/search", "/search/", false),
            ("/search", "/Search", false),
            ("/search/", "/search/", true),
            ("/tracks/{id}", "/tracks/7", true),
            ("/tracks/{id}", "/tracks/", false),
            ("/tracks/{id}", "/tracks/7/preview", false),
            ("/tracks/{id}/preview", "/tracks/7/preview", true),
            ("/hooks/*", "/hooks/a/b", true),
            ("/hooks/*", "/hooks/", true),
            ("/hooks/*", "/hooks", false),
            ("/*", "/", true),
            ("/x:{id}", "/x:7", false),
        ] {
            let Ok(template) = Template::parse(text) else {
                assert!(!matches, "{text}");
                continue;
            };
            let path = CanonicalPath::parse(path).unwrap();
            assert_eq!(template.matches(&path), matches, "{text} {path}");
        }
    }

    #[test]
    fn a_bad_template_is_told_what_was_expected() {
        for (text, expected) in [
            ("", "starts with /"),
            ("search", "starts with /"),
            ("/a//b", "without //"),
            ("//", "without //"),
            ("/a*", "* only as a whole segment"),
            ("/*/a", "* only as the last segment"),
            ("/{a}{b}", "{name}"),
            ("/{}", "{name}"),
            ("/{a b}", "{name}"),
            ("/a{b}", "{name}"),
            ("/{a}/{a}", "each name once"),
            ("/../a", "segments . and .."),
            ("/a;b", "must not have ;"),
            ("/a?b=1", "must not have ?"),
            ("/%61", "canonical spelling \"a\""),
            ("/café", "canonical spelling \"caf%C3%A9\""),
        ] {
            let told = Template::parse(text).unwrap_err();
            assert!(told.contains(expected), "{text}: {told}");
        }
    }

    #[test]
    fn a_template_covers_what_it_leaves_nothing_of() {
        for (one, other, covers) in [
            ("/a", "/a", true),
            ("/{x}", "/{y}", true),
            ("/{x}", "/a", true),
            ("/a", "/{x}", false),
            ("/{x}", "/", false),
            ("/*", "/", true),
            ("/*", "/a/b", true),
            ("/*", "/*", true),
            ("/{x}", "/*", false),
            ("/a/*", "/a", false),
            ("/a/*", "/a/{x}/*", true),
            ("/a/{x}", "/a/b/c", false),
        ] {
            assert_eq!(
                template(one).covers(&template(other)),
                covers,
                "{one} {other}"
            );
        }
    }

    #[test]
    fn a_base_path_stands_before_the_template() {
        assert_eq!(template("/a/*").under("/api/v1"), template("/api/v1/a/*"));
        assert_eq!(template("/").under("/api"), template("/api/"));
        assert_eq!(template("/a").under(""), template("/a"));
    }
}
