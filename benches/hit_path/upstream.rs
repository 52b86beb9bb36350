//! The upstream of every cache: it answers any lookup at once.

use bytes::Bytes;

use crate::{customers, floor};

/// Answers lookups of ids, until it is killed.
pub(crate) fn serve(port: u16) {
    floor::listen(port, |body| Bytes::from(customers::answer(&ids(body))));
}

/// The ids in a lookup's body.
fn ids(body: &[u8]) -> Vec<usize> {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap();
    let ids = body["audienceUserIdList"].as_array().unwrap().iter();
    ids.map(|id| usize::try_from(id.as_u64().unwrap()).unwrap()).collect()
}
