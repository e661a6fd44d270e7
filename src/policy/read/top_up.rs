//! `[top_up]`.

use std::collections::BTreeMap;

use super::{Table, plans::read_pool_name};
use crate::{
    account::{TOP_UP_LEAST, TOP_UP_TARGET},
    credits::Credits,
    payments::money::Money,
    policy::{Pool, TopUpOffer},
};

const A_PRICE: &str = "a price such as \"1.00 USD\" or \"150 JPY\"";

/// The table, where there is one.
pub(super) fn read(mut table: Table<'_>, pools: &BTreeMap<String, Pool>) -> Option<TopUpOffer> {
    let pool = read_pool_name(&mut table, pools);
    let credits_per = table.require("credits_per", "how many credits the price is of");
    let price = table.require("price", A_PRICE);
    table.finish();
    let credits_per = credits_per.and_then(|value| value.credits(1));
    let price = price?;
    let offer = TopUpOffer {
        pool,
        credits_per: credits_per?,
        price: price.parsed(A_PRICE, Money::parse)?,
    };
    // The smallest and the largest that customers can have.
    for credits in [TOP_UP_LEAST, TOP_UP_TARGET.1] {
        let cost = Credits::new(credits).and_then(|credits| offer.price_of(credits));
        if !cost.is_some_and(Money::can_be_paid) {
            let currency = offer.price.currency;
            let least = Money {
                amount: currency.minimum(),
                currency,
            };
            let found = cost.map_or_else(|| "no amount".to_owned(), |cost| cost.to_string());
            price.say(&format!(
                "expected {credits} credits to cost what Stripe takes in one payment, {least} or \
                 more and 8 digits at most, found {found}"
            ));
        }
    }
    Some(offer)
}
