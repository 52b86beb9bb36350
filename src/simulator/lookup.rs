//! Lookups: what a body asks, whom that reaches, and the records that answer it.
//!
//! Both lookups are driven by their [`Shape`]; what several lists mean, how `data` is ordered and what slips in unasked are
//! the switches of [`Config`].

use serde_json::{Map, Value};

use super::{
    call::Call,
    config::{Config, DataOrder, EmptyData, MixedLists},
    customers,
    envelope::Answer,
    record::{Print, Viewer},
    writes::Directory,
};
use crate::shape::{Shape, ValueType};

/// The code of a body that says nothing that can be looked up.
const BAD_PARAMETERS: &str = "400000";
/// The code of too many keys.
const TOO_MANY_KEYS: &str = "400003";

/// What a body asks.
#[derive(Clone, Default, Debug)]
pub(super) struct Asked {
    /// `companyId`; `null` counts as absent.
    pub(super) company: Option<String>,
    /// `instanceAppid`.
    pub(super) instance: Option<String>,
    /// All other fields that are no key list.
    pub(super) rest: String,
    /// Lists that have keys, in the shape's order.
    pub(super) keys: Vec<(String, Vec<String>)>,
    /// Why it cannot be answered.
    pub(super) problem: Option<&'static str>,
}

impl Asked {
    /// Reads a body; what cannot be read is a problem, and the rest is still there for the log.
    pub(super) fn read(call: Call, body: &[u8]) -> Self {
        let Ok(mut fields) = serde_json::from_slice::<Map<String, Value>>(body) else {
            return Self { rest: "{}".to_owned(), problem: Some("请求体不是JSON对象"), ..Self::default() };
        };
        let mut asked = Self { company: take(&mut fields, "companyId"), ..Self::default() };
        asked.instance = take(&mut fields, "instanceAppid");
        let shape = if call == Call::Tags { Shape::tag_batchlist() } else { Shape::audience_detail() };
        for list in &shape.lists {
            let Some(members) = fields.remove(&list.name).filter(|members| !members.is_null()) else { continue };
            let members = members.as_array().cloned().unwrap_or_else(|| vec![Value::Null]);
            let keys: Vec<String> = members.iter().filter_map(|member| key(member, list.value_type)).collect();
            if keys.len() < members.len() {
                asked.problem = Some("参数类型错误");
            }
            if !keys.is_empty() {
                asked.keys.push((list.name.clone(), keys));
            }
        }
        asked.rest = Value::Object(fields).to_string();
        if asked.keys.is_empty() && asked.problem.is_none() {
            asked.problem = Some("audienceUserIdList,thirdIdList,phoneList这3个集合参数不能同时为空");
        }
        asked
    }

    /// How many keys it carries.
    pub(super) fn key_count(&self) -> usize {
        self.keys.iter().map(|(_, values)| values.len()).sum()
    }

    /// The business error that it deserves.
    pub(super) fn rejection(&self, config: &Config) -> Option<Answer> {
        let fail = |code: &str, msg: &str| Some(Answer::failure(config.rejection_status, code, msg));
        if let Some(problem) = self.problem {
            return fail(BAD_PARAMETERS, problem);
        }
        if self.key_count() > config.max_keys {
            return fail(TOO_MANY_KEYS, "参数数量超过限制");
        }
        let mut values = self.keys.iter().flat_map(|(_, values)| values);
        if values.any(|value| config.bad_keys.contains(value)) {
            return fail(&config.rejection_code, "参数不合法");
        }
        None
    }
}

/// A text field; a number counts as its digits.
pub(super) fn take(fields: &mut Map<String, Value>, name: &str) -> Option<String> {
    match fields.remove(name)? {
        Value::String(text) => Some(text),
        Value::Null => None,
        other => Some(other.to_string()),
    }
}

fn key(member: &Value, value_type: ValueType) -> Option<String> {
    match (value_type, member) {
        (ValueType::Int64, Value::Number(number)) => number.as_i64().map(|id| id.to_string()),
        (ValueType::Int64, Value::String(text)) => text.parse::<i64>().ok().map(|id| id.to_string()),
        (ValueType::Text, Value::String(text)) => Some(text.clone()),
        _ => None,
    }
}

/// One company's customers as one viewer sees them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answering<'a> {
    /// The switches.
    pub(super) config: &'a Config,
    /// Whose customers.
    pub(super) directory: Directory<'a>,
    /// Who asks.
    pub(super) viewer: &'a Viewer,
}

impl Answering<'_> {
    /// Whom one key reaches, ascending.
    pub(super) fn reached(&self, list: &str, value: &str) -> Vec<u64> {
        match list {
            "audienceUserIdList" => value.parse().ok().and_then(|id| self.directory.by_id(id)).into_iter().collect(),
            "thirdIdList" => self.directory.by_third_id(value),
            "phoneList" if self.config.lenient_phones => {
                let digits: String = value.chars().filter(char::is_ascii_digit).collect();
                let plain = digits.strip_prefix("86").filter(|rest| rest.len() == 11).unwrap_or(&digits);
                self.directory.by_phone(plain)
            }
            "phoneList" => self.directory.by_phone(value),
            _ => Vec::new(),
        }
    }

    /// The record of a customer, as the call gives it.
    pub(super) fn record(&self, call: Call, index: u64) -> String {
        let customer = self.directory.customer(index);
        let version = self.directory.version(index);
        let print = Print { config: self.config, viewer: self.viewer };
        if call != Call::Tags {
            return print.record(&customer, version, self.directory.fields(index));
        }
        let tag = |n: u64| format!(r#"{{"tagId":"{n}","tagName":"标签\/{n}","groupName":"第{version}版"}}"#);
        let tags: Vec<String> = (0..index % 5).map(|n| tag(index % 90 + n)).collect();
        let id = print.id(customer.id);
        format!(r#"{{"orgId":{},"audienceUserId":{id},"tagList":[{}]}}"#, self.viewer.org_json(), tags.join(","))
    }

    /// The honest answer to a lookup.
    pub(super) fn answer(&self, call: Call, asked: &Asked, chance: &mut fastrand::Rng) -> Answer {
        let mut found = self.found(&asked.keys);
        if !self.config.repeat_matches {
            let mut seen = std::collections::HashSet::new();
            found.retain(|index| seen.insert(*index));
        }
        if self.config.unasked && self.config.customers > 0 {
            let first = chance.u64(..self.config.customers);
            let mut others = (0..self.config.customers).map(|n| (first + n) % self.config.customers);
            found.extend(others.find(|other| !found.contains(other)));
        }
        match self.config.data_order {
            DataOrder::Asked => {}
            DataOrder::Reversed => found.reverse(),
            DataOrder::Shuffled => chance.shuffle(&mut found),
        }
        let records: Vec<String> = found.iter().map(|index| self.record(call, *index)).collect();
        let data = match (records.is_empty(), self.config.empty_data) {
            (true, EmptyData::Null) => Some("null".to_owned()),
            (true, EmptyData::Absent) => None,
            _ => Some(format!("[{}]", records.join(","))),
        };
        Answer::success(self.config.envelope, data.as_deref())
    }

    /// Whom the lists reach together, in the order asked; a customer may be there more than once.
    fn found(&self, keys: &[(String, Vec<String>)]) -> Vec<u64> {
        let mut lists: Vec<Vec<u64>> = keys
            .iter()
            .map(|(list, values)| values.iter().flat_map(|value| self.reached(list, value)).collect())
            .collect();
        match self.config.mixed_lists {
            MixedLists::Union => lists.concat(),
            MixedLists::First => lists.into_iter().next().unwrap_or_default(),
            MixedLists::Intersection => {
                let mut first = if lists.is_empty() { Vec::new() } else { lists.remove(0) };
                first.retain(|index| lists.iter().all(|list| list.contains(index)));
                first
            }
        }
    }

    /// `data` of the id list: up to `size` ids after one.
    pub(super) fn ids_after(&self, id: i64, size: usize) -> String {
        let ids: Vec<String> =
            self.directory.after(id).take(size).map(|index| format!("\"{}\"", customers::id_of(index))).collect();
        format!(r#"{{"orgId":{},"audienceUserIdList":[{}]}}"#, self.viewer.org_json(), ids.join(","))
    }
}
