//! The customers, the lookups that ask for them, and the answers.
//!
//! - Every record has the same length, and so has every answer to as many keys.
//! - A customer stands in exactly one lookup: all lookups together read every record, in no order.
//! - The gateway gives the upstream's envelope and records as they are, in the order of the request: the answer of
//!   every server to one body is the same bytes.

use crate::{load::Ask, options::Keys};

/// Bytes of one record: what the platform's own examples have.
const RECORD: usize = 1541;
/// The first customer's id; all have the same number of digits.
const FIRST: usize = 10_000_000;
/// What stands before the records.
const HEAD: &str = r#"{"code":"200","errorCode":"SUCCESS","msg":"ok","data":["#;
/// What stands behind them.
const TAIL: &str = "]}";

/// The customers' ids, in no order.
pub(crate) fn ids(customers: usize) -> Vec<usize> {
    let mut ids: Vec<usize> = (FIRST..FIRST + customers).collect();
    fastrand::Rng::with_seed(1).shuffle(&mut ids);
    ids
}

/// The lists of customers that lookups ask for.
pub(crate) fn lists(ids: &[usize], keys: Keys) -> Vec<Vec<usize>> {
    let most = if keys == Keys::Hot { 1 } else { ids.len() };
    ids.chunks_exact(keys.count()).take(most).map(<[usize]>::to_vec).collect()
}

/// A customer as the upstream gives it, found under an id, a third id and a phone.
pub(crate) fn record(id: usize) -> String {
    let mut record = format!(
        r#"{{"audienceUserId":{id},"thirdId":"crm-{id}","phone":"138{id}","phoneList":[{{"phone":"138{id}"}}],"orgId":"42","tags":["#
    );
    let mut chance = fastrand::Rng::with_seed(id as u64);
    while record.len() < RECORD - 64 {
        record.push_str(&format!(r#"{{"tagId":{},"name":"标签{}"}},"#, chance.u32(..1_000_000), chance.u16(..1000)));
    }
    let rest = RECORD - record.len() - r#"""]}"#.len();
    record.push_str(&format!(r#""{}"]}}"#, "x".repeat(rest)));
    record
}

/// The whole answer to a list.
pub(crate) fn answer(ids: &[usize]) -> Vec<u8> {
    let records: Vec<String> = ids.iter().map(|&id| record(id)).collect();
    format!("{HEAD}{}{TAIL}", records.join(",")).into_bytes()
}

/// Bytes of the answer to so many keys.
pub(crate) fn answer_length(keys: usize) -> usize {
    HEAD.len() + keys * (RECORD + 1) - 1 + TAIL.len()
}

/// A lookup over HTTP.
pub(crate) fn http(ids: &[usize]) -> Ask {
    let ids: Vec<String> = ids.iter().map(usize::to_string).collect();
    let body = format!(r#"{{"audienceUserIdList":[{}]}}"#, ids.join(","));
    let head = format!(
        "POST /api/audience/detail HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\nx-token: bench\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    Ask { bytes: [head, body].concat().into_bytes(), reply: answer_length(ids.len()) }
}

/// The same records of Redis.
pub(crate) fn mget(ids: &[usize]) -> Ask {
    let keys: String = ids.iter().map(|id| format!("$8\r\n{id}\r\n")).collect();
    let reply = format!("*{}\r\n", ids.len()).len() + ids.len() * (format!("${RECORD}\r\n").len() + RECORD + 2);
    Ask { bytes: format!("*{}\r\n$4\r\nMGET\r\n{keys}", ids.len() + 1).into_bytes(), reply }
}

/// Puts a record into Redis.
pub(crate) fn set(id: usize) -> Ask {
    let record = record(id);
    let bytes = format!("*3\r\n$3\r\nSET\r\n$8\r\n{id}\r\n${}\r\n{record}\r\n", record.len());
    Ask { bytes: bytes.into_bytes(), reply: "+OK\r\n".len() }
}

/// What Redis says to [`mget`].
pub(crate) fn mget_answer(ids: &[usize]) -> Vec<u8> {
    let records: String = ids.iter().map(|&id| format!("${RECORD}\r\n{}\r\n", record(id))).collect();
    format!("*{}\r\n{records}", ids.len()).into_bytes()
}
