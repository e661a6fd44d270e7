//! `[[packages]]` and `[payments]`.

use std::collections::BTreeMap;

use super::{Table, Value, gateway::set, is_name, plans::read_pool_name};
use crate::{
    payments::money::Money,
    policy::{Package, Payments, Pool},
};

const A_PRICE: &str = "a price such as \"50.00 USD\" or \"5000 JPY\"";
const A_PAGE: &str = "a page of yours such as \"https://app.example.com/billing\"";

/// The `[[packages]]` tables.
pub(super) fn read_packages(
    packages: Option<Value<'_>>,
    pools: &BTreeMap<String, Pool>,
) -> Vec<Package> {
    let mut all: Vec<Package> = Vec::new();
    let list = packages.and_then(|packages| packages.list("[[packages]] tables"));
    for value in list.into_iter().flatten() {
        let Some(package) = value.table().and_then(|table| read_package(table, pools)) else {
            continue;
        };
        if all.iter().any(|earlier| earlier.id == package.id) {
            value.say(&format!(
                "expected another id than that of an earlier package, found {:?}",
                package.id
            ));
        }
        all.push(package);
    }
    all
}

fn read_package(mut table: Table<'_>, pools: &BTreeMap<String, Pool>) -> Option<Package> {
    let id = table.require("id", "the package's name");
    let pool = read_pool_name(&mut table, pools);
    let credits = table.require("credits", "how many credits");
    let price = table.require("price", A_PRICE);
    table.finish();
    let id = id.and_then(|value| {
        value.parsed("a name of 1 to 64 letters, digits, _ and -", |id| {
            is_name(id, 64, b"_-").then(|| id.to_owned())
        })
    });
    let credits = credits.and_then(|value| value.credits(1));
    Some(Package {
        id: id?,
        pool,
        credits: credits?,
        price: read_price(&price?)?,
    })
}

fn read_price(value: &Value<'_>) -> Option<Money> {
    let price = value.parsed(A_PRICE, Money::parse)?;
    if !price.can_be_paid() {
        let least = Money {
            amount: price.currency.minimum(),
            ..price
        };
        value.wrong(&format!("an amount that Stripe takes, {least} or more"));
        return None;
    }
    Some(price)
}

/// `[payments]`.
pub(super) fn read_payments(table: Option<Table<'_>>) -> Payments {
    let mut payments = Payments::default();
    let Some(mut table) = table else {
        return payments;
    };
    if let Some(value) = table.take("return_url") {
        payments.return_url = value.parsed(A_PAGE, |url| {
            let rest = url
                .strip_prefix("https://")
                .or_else(|| url.strip_prefix("http://"))?;
            let is_plain = url.bytes().all(|byte| byte.is_ascii_graphic());
            (is_plain && !rest.is_empty() && !rest.starts_with('/')).then(|| url.to_owned())
        });
    }
    set(
        &mut payments.automatic_tax,
        table.take("automatic_tax"),
        Value::flag,
    );
    table.finish();
    payments
}
