//! A snapshot as it lies in rows: whole in one, or in pieces where it is larger than a row takes.
//!
//! A snapshot is a CBOR array. Where it is in pieces, the first of them begins with a number: of the
//! pieces that follow. So each says by itself what it is, and a release that knows of no pieces finds no
//! array and refuses to serve, rather than take a part for the whole.

use std::borrow::Cow;

use minicbor::Decoder;

/// The most bytes of a piece. A row of a Durable Object takes 2 MB.
pub const PIECE_MAX: usize = 1_000_000;

/// The pieces of `snapshot` in their order: itself, where it fits.
#[must_use]
pub fn split(snapshot: &[u8]) -> Vec<Cow<'_, [u8]>> {
    let mut pieces = snapshot.chunks(PIECE_MAX);
    let first = pieces.next().unwrap_or_default();
    if pieces.len() == 0 {
        return vec![Cow::Borrowed(snapshot)];
    }
    // Encoding into memory cannot fail.
    let mut counted = minicbor::to_vec(pieces.len()).unwrap_or_default();
    counted.extend_from_slice(first);
    let following = pieces.map(Cow::Borrowed);
    [Cow::Owned(counted)].into_iter().chain(following).collect()
}

/// The snapshot that lies in `pieces`; `None` where some are missing.
#[must_use]
pub fn join(pieces: impl IntoIterator<Item = Vec<u8>>) -> Option<Vec<u8>> {
    let mut pieces = pieces.into_iter();
    let first = pieces.next()?;
    let mut decoder = Decoder::new(&first);
    let Ok(following) = decoder.u32() else {
        return Some(first);
    };
    let mut snapshot = first.get(decoder.position()..)?.to_vec();
    for _ in 0..following {
        snapshot.extend(pieces.next()?);
    }
    Some(snapshot)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An array of bytes, as long as told.
    fn snapshot(len: usize) -> Vec<u8> {
        let items: Vec<u8> = (0..len - 5).map(|item| (item % 23) as u8).collect();
        let snapshot = minicbor::to_vec(items).unwrap();
        assert_eq!(snapshot.len(), len);
        snapshot
    }

    #[test]
    fn a_snapshot_of_any_size_is_what_its_pieces_are_joined_to() {
        for (len, count) in [
            (70_000, 1),
            (PIECE_MAX, 1),
            (PIECE_MAX + 1, 2),
            (2 * PIECE_MAX, 2),
            (7 * PIECE_MAX / 2, 4),
        ] {
            let snapshot = snapshot(len);
            let mut pieces: Vec<Vec<u8>> =
                split(&snapshot).into_iter().map(Cow::into_owned).collect();
            assert_eq!(pieces.len(), count);
            assert!(pieces.iter().all(|piece| piece.len() <= PIECE_MAX + 9));
            // What is left of a longer one is passed over.
            let longer = pieces.iter().cloned().chain([vec![1; 9]]);
            assert_eq!(join(longer).as_ref(), Some(&snapshot));
            assert_eq!(join(pieces.clone()), Some(snapshot));
            pieces.pop();
            assert_eq!(join(pieces), None);
        }
    }

    #[test]
    fn a_release_that_knows_no_pieces_takes_none_for_a_snapshot() {
        let snapshot = snapshot(PIECE_MAX + 1);
        for piece in split(&snapshot) {
            assert!(minicbor::decode::<Vec<u8>>(&piece).is_err());
        }
        let whole = split(&snapshot[..PIECE_MAX]);
        assert_eq!(*whole, [&snapshot[..PIECE_MAX]]);
    }
}
