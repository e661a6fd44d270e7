//! Analytics Engine, where a dataset is bound as `ANALYTICS`. A point that cannot be written is lost:
//! nobody waits for it.

use super::platform::{Env, console_error, message_of};
use crate::{
    data_point::{Answered, of_hour, of_request},
    id::AccountId,
    status::Hours,
};

/// Writes the point of a request.
pub fn write_request(env: &Env, request: &Answered<'_>) {
    write(env, &of_request(request));
}

/// Writes points of what no request tells, when the directory has counted it.
pub fn write_hours(env: &Env, account: &AccountId, hours: &Hours) {
    for counts in hours.iter() {
        if let Some(point) = of_hour(account.as_str(), counts) {
            write(env, &point);
        }
    }
}

fn write(env: &Env, point: &str) {
    let Some(dataset) = env.analytics() else {
        return;
    };
    let written = js_sys::JSON::parse(point).and_then(|point| dataset.write_data_point(&point));
    if let Err(thrown) = written {
        console_error(&message_of(&thrown));
    }
}
