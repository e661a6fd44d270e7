//! `#[derive(Decode)]` for minicbor's trait of that name, made for few bytes of wasm.
//!
//! It takes minicbor's own attributes, as far as Tollgate uses them, and reads what minicbor's
//! `#[derive(Encode)]` writes. Minicbor's own derive writes each type's reader twice, for arrays whose
//! length is told and for those whose end is marked, looks for every place at every step, and names
//! every field in a message of its own. Here places are read one after the other by
//! `crate::wire::Places`, which all types share.

use proc_macro2::{Ident, Span, TokenStream};
use quote::quote;
use syn::{
    Attribute, Data, DeriveInput, Error, Fields, GenericParam, LitInt, LitStr, Path, Result,
    parse_macro_input, spanned::Spanned,
};

/// Implements `minicbor::Decode` for a struct with `#[cbor(array)]` or `#[cbor(transparent)]`, or for
/// an enum, with `#[cbor(index_only)]` or without.
#[proc_macro_derive(Decode, attributes(n, cbor))]
pub fn derive_decode(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    decode(&input)
        .unwrap_or_else(Error::into_compile_error)
        .into()
}

fn decode(input: &DeriveInput) -> Result<TokenStream> {
    let shape = Marks::read(&input.attrs)?;
    let read = match &input.data {
        Data::Struct(data) if shape.is("transparent") => transparent(&data.fields),
        Data::Struct(data) if shape.is("array") => {
            let value = places(&quote!(Self), &data.fields)?;
            Ok(quote! {
                let mut places = crate::wire::Places::open(decoder)?;
                let value = #value;
                places.close()?;
                Ok(value)
            })
        }
        Data::Enum(data) => variants(data, shape.is("index_only")),
        Data::Struct(_) | Data::Union(_) => Err(Error::new(
            input.span(),
            "expected #[cbor(array)], #[cbor(transparent)] or an enum",
        )),
    }?;
    let name = &input.ident;
    if let Some(other) = input
        .generics
        .params
        .iter()
        .find(|param| !matches!(param, GenericParam::Type(_)))
    {
        return Err(Error::new(other.span(), "expected types alone"));
    }
    let types: Vec<&Ident> = input
        .generics
        .type_params()
        .map(|param| &param.ident)
        .collect();
    Ok(quote! {
        impl<'bytes, Ctx, #(#types: ::minicbor::Decode<'bytes, Ctx>),*> ::minicbor::Decode<'bytes, Ctx>
            for #name<#(#types),*>
        {
            fn decode(
                decoder: &mut ::minicbor::Decoder<'bytes>,
                context: &mut Ctx,
            ) -> ::core::result::Result<Self, ::minicbor::decode::Error> {
                #read
            }
        }
    })
}

/// The value of the one field stands for the whole.
fn transparent(fields: &Fields) -> Result<TokenStream> {
    let mut members = fields.members();
    let (Some(member), None, Some(field)) = (members.next(), members.next(), fields.iter().next())
    else {
        return Err(Error::new(fields.span(), "expected one field"));
    };
    let read = match Marks::read(&field.attrs)?.with {
        Some(module) => quote!(#module::decode(decoder, context)),
        None => quote!(::minicbor::Decode::decode(decoder, context)),
    };
    Ok(quote!(Ok(Self { #member: #read? })))
}

/// `[variant, [places]]`, or the variant alone.
fn variants(data: &syn::DataEnum, index_only: bool) -> Result<TokenStream> {
    let mut arms = Vec::new();
    for variant in &data.variants {
        let number = Marks::read(&variant.attrs)?.number(variant.span())?;
        let number = LitInt::new(&number.to_string(), variant.span());
        let name = &variant.ident;
        let value = places(&quote!(Self::#name), &variant.fields)?;
        arms.push(quote!(#number => #value,));
    }
    let unknown = quote!(other => return Err(::minicbor::decode::Error::unknown_variant(other)));
    Ok(if index_only {
        quote!(Ok(match decoder.i64()? { #(#arms)* #unknown }))
    } else {
        quote! {
            let (variant, mut places) = crate::wire::Places::open_variant(decoder)?;
            let value = match variant { #(#arms)* #unknown };
            places.close()?;
            Ok(value)
        }
    })
}

/// `constructor` with its fields, read in the order of their numbers.
fn places(constructor: &TokenStream, fields: &Fields) -> Result<TokenStream> {
    let mut numbered = Vec::new();
    for (member, field) in fields.members().zip(fields) {
        let marks = Marks::read(&field.attrs)?;
        let number = marks.number(field.span())?;
        let read = match (&marks.with, marks.is("default")) {
            (Some(module), false) => quote!(places.next_with(context, #module::decode)?),
            (None, true) => quote!(places.next_or_default(context)?),
            (None, false) => quote!(places.next(context)?),
            (Some(_), true) => return Err(Error::new(field.span(), "expected with or default")),
        };
        numbered.push((number, member, read));
    }
    numbered.sort_by_key(|(number, ..)| *number);
    let mut place = 0;
    let mut reads = Vec::new();
    for (number, member, read) in numbered {
        let unused: u64 = number.checked_sub(place).ok_or_else(|| {
            Error::new(read.span(), format!("the number {number} is there twice"))
        })?;
        // Encode writes null at places that no field has.
        let pass_over = (unused > 0).then(|| quote!(places.pass_over(#unused)?;));
        reads.push(quote!(#member: { #pass_over #read }));
        place = number.saturating_add(1);
    }
    Ok(quote!(#constructor { #(#reads),* }))
}

/// What `#[n(…)]` and `#[cbor(…)]` say of a type, a variant or a field.
#[derive(Default)]
struct Marks {
    number: Option<u64>,
    with: Option<Path>,
    words: Vec<Ident>,
}

impl Marks {
    fn read(attributes: &[Attribute]) -> Result<Self> {
        let mut marks = Self::default();
        for attribute in attributes {
            if attribute.path().is_ident("n") {
                marks.number = Some(attribute.parse_args::<LitInt>()?.base10_parse()?);
            } else if attribute.path().is_ident("cbor") {
                attribute.parse_nested_meta(|meta| {
                    if meta.path.is_ident("n") {
                        let inside;
                        syn::parenthesized!(inside in meta.input);
                        marks.number = Some(inside.parse::<LitInt>()?.base10_parse()?);
                    } else if meta.path.is_ident("with") {
                        marks.with = Some(meta.value()?.parse::<LitStr>()?.parse()?);
                    } else {
                        marks.words.push(meta.path.require_ident()?.clone());
                    }
                    Ok(())
                })?;
            }
        }
        let known = ["array", "transparent", "index_only", "default"];
        match marks
            .words
            .iter()
            .find(|word| !known.iter().any(|known| word == known))
        {
            Some(word) => Err(Error::new(word.span(), "not known to tollgate-places")),
            None => Ok(marks),
        }
    }

    fn is(&self, word: &str) -> bool {
        self.words.iter().any(|said| said == word)
    }

    fn number(&self, place: Span) -> Result<u64> {
        self.number
            .ok_or_else(|| Error::new(place, "expected #[n(…)]"))
    }
}
