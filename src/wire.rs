//! How messages, rows and the compiled policy are written and read: CBOR arrays with numbered places.
//!
//! `Encode` is minicbor's. `Decode` implements minicbor's trait in less code (`places/`): what it makes
//! of a type is a walk over [`Places`].

use minicbor::{Decoder, data::Type, decode::Error};
pub use minicbor::{Encode, decode::Decode};
pub use tollgate_places::Decode;

/// The places of an array, in their order. Those that nobody asks for are passed over: a later release
/// wrote them.
#[derive(Debug)]
pub struct Places<'d, 'bytes> {
    decoder: &'d mut Decoder<'bytes>,
    read: u32,
    left: u64,
}

impl<'d, 'bytes> Places<'d, 'bytes> {
    /// Opens an array, whose length must be told.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn open(decoder: &'d mut Decoder<'bytes>) -> Result<Self, Error> {
        let left = decoder
            .array()?
            .ok_or_else(|| Error::message("an array of unknown length"))?;
        Ok(Self {
            decoder,
            read: 0,
            left,
        })
    }

    /// Opens the places of an enum's variant: `[variant, [places]]`.
    ///
    /// # Errors
    ///
    /// There is no such array.
    pub fn open_variant(decoder: &'d mut Decoder<'bytes>) -> Result<(i64, Self), Error> {
        if decoder.array()? != Some(2) {
            return Err(Error::message("no enum"));
        }
        let variant = decoder.i64()?;
        Ok((variant, Self::open(decoder)?))
    }

    /// The next place. One that is missing, and a variant that a later release has added, are `None`
    /// where they are optional.
    ///
    /// # Errors
    ///
    /// It is missing, or cannot be read.
    pub fn next<T: Decode<'bytes, Ctx>, Ctx>(&mut self, context: &mut Ctx) -> Result<T, Error> {
        if self.left == 0
            && let Some(nothing) = T::nil()
        {
            return Ok(nothing);
        }
        let start = self.decoder.position();
        match self.next_with(context, T::decode) {
            Err(error) if error.is_unknown_variant() => {
                let nothing = T::nil().ok_or(error)?;
                self.decoder.set_position(start);
                self.decoder.skip()?;
                Ok(nothing)
            }
            read => read,
        }
    }

    /// The next place, or the default of its type where it is missing, or null because a release that
    /// did not know of it had others after it.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn next_or_default<T, Ctx>(&mut self, context: &mut Ctx) -> Result<T, Error>
    where
        T: Decode<'bytes, Ctx> + Default,
    {
        let is_there = self.left > 0 && self.decoder.datatype()? != Type::Null;
        if is_there || T::nil().is_some() {
            return self.next(context);
        }
        self.pass_over(1)?;
        Ok(T::default())
    }

    /// The next place, as `decode` reads it.
    ///
    /// # Errors
    ///
    /// It is missing, or `decode` cannot read it.
    pub fn next_with<T, Ctx>(
        &mut self,
        context: &mut Ctx,
        decode: impl FnOnce(&mut Decoder<'bytes>, &mut Ctx) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let Some(left) = self.left.checked_sub(1) else {
            return Err(Error::missing_value(self.read.into()));
        };
        self.left = left;
        self.read = self.read.saturating_add(1);
        decode(self.decoder, context)
    }

    /// Passes over what is left.
    ///
    /// # Errors
    ///
    /// It is no CBOR.
    pub fn close(mut self) -> Result<(), Error> {
        self.pass_over(self.left)
    }

    /// Passes over the next `count` places, as far as they are there.
    ///
    /// # Errors
    ///
    /// They are no CBOR.
    pub fn pass_over(&mut self, count: u64) -> Result<(), Error> {
        for _ in 0..count.min(self.left) {
            self.left = self.left.saturating_sub(1);
            self.read = self.read.saturating_add(1);
            self.decoder.skip()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq, Encode, Decode)]
    #[cbor(array)]
    struct Parcel {
        #[n(0)]
        number: u32,
        #[n(1)]
        label: Option<Label>,
        #[cbor(n(2), default)]
        weight: u32,
        #[n(3)]
        inner: Option<Inner>,
    }

    #[derive(Debug, PartialEq, Eq, Encode, Decode)]
    enum Label {
        #[n(0)]
        Blank,
        #[n(1)]
        Written {
            #[n(0)]
            text: String,
        },
    }

    #[derive(Debug, PartialEq, Eq, Encode, Decode)]
    #[cbor(array)]
    struct Inner {
        #[n(0)]
        label: Label,
    }

    fn read(bytes: &[u8]) -> Result<Parcel, String> {
        minicbor::decode(bytes).map_err(|error| error.to_string())
    }

    fn parcel(label: Option<Label>, weight: u32, inner: Option<Inner>) -> Parcel {
        Parcel {
            number: 7,
            label,
            weight,
            inner,
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let text = "x".to_owned();
        for parcel in [
            parcel(None, 0, None),
            parcel(Some(Label::Blank), 9, None),
            parcel(
                Some(Label::Written { text }),
                9,
                Some(Inner {
                    label: Label::Blank,
                }),
            ),
        ] {
            let bytes = minicbor::to_vec(&parcel).unwrap();
            assert_eq!(read(&bytes), Ok(parcel));
        }
    }

    #[test]
    fn what_a_neighbouring_release_writes_is_read() {
        for (bytes, expected) in [
            // Places that are not there yet.
            (&[0x81, 7][..], parcel(None, 0, None)),
            (&[0x84, 7, 0xf6, 0xf6, 0xf6], parcel(None, 0, None)),
            (&[0x82, 7, 0xf6], parcel(None, 0, None)),
            // A place that is not known any more than what is in it.
            (
                &[0x85, 7, 0xf6, 9, 0xf6, 0x82, 1, 0x61, b'x'],
                parcel(None, 9, None),
            ),
            // A variant that is not known, where it is optional; what follows is still read.
            (
                &[0x83, 7, 0x82, 5, 0x81, 0x61, b'x', 9],
                parcel(None, 9, None),
            ),
            (
                &[0x84, 7, 0xf6, 9, 0x81, 0x82, 5, 0x80],
                parcel(None, 9, None),
            ),
            // A place that is not known in a variant that is.
            (
                &[0x83, 7, 0x82, 0, 0x81, 3, 9],
                parcel(Some(Label::Blank), 9, None),
            ),
        ] {
            assert_eq!(read(bytes), Ok(expected), "{bytes:x?}");
        }
    }

    #[test]
    fn what_nobody_wrote_is_refused() {
        for bytes in [
            &[][..],
            &[0x80],
            &[0x07],
            &[0x83, 7, 0xf6],
            // The last place is there, and lacks one of its own.
            &[0x84, 7, 0xf6, 9, 0x80],
            &[0x83, 7, 0x81, 0, 9],
            &[0x9f, 7, 0xff],
        ] {
            assert!(read(bytes).is_err(), "{bytes:x?}");
        }
    }
}
