//! The text of one customer's record.
//!
//! Written as text, not through a JSON library, because the point is to see whether a reader passes it on verbatim: escaped
//! slashes and Chinese, surrogate pairs, numbers such as `1.0` and `1e3`, spaces between tokens, and nested members that
//! are named like keys but are not the customer's. A field without a value is left out, which fields depends on the
//! customer. What differs between two scopes is `orgId` and `remark`; what differs between versions is `remark` and
//! `lastActiveTime`.

use super::{
    config::{Config, IdSpelling, PhoneSpelling},
    customers::{self, Customer},
    members::Members,
};

const FAMILY_NAMES: [&str; 12] = ["王", "李", "张", "刘", "陈", "杨", "赵", "黄", "周", "吴", "欧阳", "司马"];
const GIVEN_NAMES: [&str; 12] =
    ["伟", "芳", "娜", "秀英", "敏", "静", "丽", "强", "磊", "俊驰", "子\\u6db5", "\\u5fd7\\u8fdc"];
const PLACES: [[&str; 2]; 10] = [
    ["广东省", "深圳市"],
    ["广东省", "广州市"],
    ["北京市", "北京市"],
    ["上海市", "上海市"],
    ["浙江省", "杭州市"],
    ["四川省", "成都市"],
    ["湖北省", "武汉市"],
    ["陕西省", "西安市"],
    ["新疆维吾尔自治区", "乌鲁木齐市"],
    ["\\u798f\\u5efa\\u7701", "厦门市"],
];
const NICKNAMES: [&str; 8] =
    ["小鱼儿🐟", "\\ud83d\\ude00笑一个", "阿 明", "A\\\"lice\\\"", "path\\\\to", "\\t tab", "Zoë", "兔展\\/用户"];
const INDUSTRIES: [&str; 5] = ["科技服务\\/互联网", "教育培训", "金融/保险", "零售 \\u0026 电商", "制造业"];
const APPS: [&str; 6] = ["微信", "企业微信", "公众号", "内容小程序", "今日头条", "其他"];

/// How one scope sees customers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Viewer {
    /// `orgId`: the company that was asked for, else the one that the token belongs to.
    pub(super) org: String,
    /// A number that differs for every token, company and instance.
    pub(super) mark: u64,
}

impl Viewer {
    /// The viewer behind a token's principal, a company and an instance.
    pub(super) fn new(principal: &str, company: &str, instance: &str) -> Self {
        let org = match company {
            "" => (10_000 + customers::digest(principal) % 1_000_000).to_string(),
            company => company.to_owned(),
        };
        let lengths = format!("{}:{}:", principal.len(), company.len());
        Self { org, mark: customers::digest(&format!("{lengths}{principal}{company}{instance}")) }
    }

    /// `orgId` as JSON writes it: a company is whatever was asked for.
    pub(super) fn org_json(&self) -> String {
        serde_json::Value::from(&*self.org).to_string()
    }
}

/// How records are written for one viewer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Print<'a> {
    /// The switches for spelling, and the seed.
    pub(super) config: &'a Config,
    /// Who sees it.
    pub(super) viewer: &'a Viewer,
}

impl Print<'_> {
    /// The record of a customer at a version, with the fields that were written over it as JSON text.
    pub(super) fn record(&self, customer: &Customer, version: u64, written: &[(String, String)]) -> String {
        let mut chance = fastrand::Rng::with_seed(customers::mix(self.config.seed, customer.index));
        let mut members = Members::new(chance.u8(..6) == 0, written);
        members.add("orgId", self.viewer.org_json());
        members.add("createTime", text(&(1_600_000_000_000 + chance.u64(..99_999_999_999)).to_string()));
        members.add("audienceUserId", self.id(customer.id));
        wechat(&mut members, &mut chance, customer);
        self.phones(&mut members, customer);
        person(&mut members, &mut chance);
        places(&mut members, &mut chance, customer);
        let remark = format!("第{version}版 \\u5907\\u6ce8:  {:016x}\\/{}", self.viewer.mark, customer.index);
        members.add("remark", text(&remark));
        members.add("lastActiveTime", 1_648_097_250_890 + customer.index % 1_000_000 + version);
        source(&mut members, &mut chance, customer);
        activity(&mut members, &mut chance);
        if let Some(first) = customer.phones.first().filter(|_| customer.index % 9 != 4) {
            members.add("phone", text(&self.phone(first)));
        }
        subscriptions(&mut members, &mut chance);
        if let Some(third_id) = &customer.third_id {
            members.add("thirdId", third_id_text(third_id, customer.index));
        }
        members.finish()
    }

    /// An id as the records spell it.
    pub(super) fn id(&self, id: i64) -> String {
        match self.config.id_spelling {
            IdSpelling::Number => id.to_string(),
            IdSpelling::String => text(&id.to_string()),
        }
    }

    fn phone(&self, phone: &str) -> String {
        let cut = |from: usize, to: usize| phone.get(from..to).unwrap_or_default();
        match self.config.phone_spelling {
            PhoneSpelling::Prefixed => format!("+86{phone}"),
            PhoneSpelling::Spaced if phone.len() == 11 => format!("{} {} {}", cut(0, 3), cut(3, 7), cut(7, 11)),
            PhoneSpelling::Masked if phone.len() == 11 => format!("{}****{}", cut(0, 3), cut(7, 11)),
            _ => phone.to_owned(),
        }
    }

    /// `phoneList`, which a customer with a single phone may lack.
    fn phones(&self, members: &mut Members<'_>, customer: &Customer) {
        let only_member = customer.index % 9 != 4 && customer.index % 17 == 8;
        if customer.phones.is_empty() || (only_member && customer.phones.len() == 1) {
            return;
        }
        let list = customer.phones.iter().enumerate().map(|(n, phone)| {
            let verified = u8::from(n == 0);
            format!(r#"{{"phone":{},"isVerify":"{verified}"}}"#, text(&self.phone(phone)))
        });
        members.add("phoneList", array(list));
    }
}

/// The text in quotes; it is taken as already escaped.
fn text(escaped: &str) -> String {
    format!("\"{escaped}\"")
}

fn array(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}

fn one_of<'a>(chance: &mut fastrand::Rng, all: &[&'a str]) -> &'a str {
    all[chance.usize(..all.len())]
}

/// Born third ids are written with escapes that mean the same; written ones as JSON writes them.
fn third_id_text(third_id: &str, index: u64) -> String {
    if index < customers::FIRST_WRITTEN && third_id.starts_with(['客', 'C']) {
        return text(&third_id.replace('/', "\\/").replace('客', "\\u5ba2"));
    }
    serde_json::Value::from(third_id).to_string()
}

fn wechat(members: &mut Members<'_>, chance: &mut fastrand::Rng, customer: &Customer) {
    let apps = chance.usize(..5);
    if apps > 0 {
        let openids = (0..apps).map(|n| {
            let open = chance.u64(..);
            let platform = ["gzh", "workwechat", "selfbuilt", "YOUZAN"][n % 4];
            format!(
                r#"{{"openid":"o{open:016x}","unionid":"u{:x}","fromTo":"gzh","appid":"wx{:08x}","platform":"{platform}","jcappid":{},"identityId":"{}","identityType":"uid"}}"#,
                open >> 7, open >> 32, open % 1000, customer.id + 1,
            )
        });
        members.add("openids", array(openids));
        members.add("unionid", text(&format!("oU{:014x}", chance.u64(..) >> 8)));
    }
    if chance.bool() {
        members.add("mpAppid", text(&format!("wx{:016x}", chance.u64(..))));
    }
}

fn person(members: &mut Members<'_>, chance: &mut fastrand::Rng) {
    let name = [one_of(chance, &FAMILY_NAMES), one_of(chance, &GIVEN_NAMES)].concat();
    if chance.u8(..8) > 0 {
        members.add("realName", text(&name));
    }
    members.add("sex", chance.u8(..3));
    if chance.u8(..4) > 0 {
        let avatar = format!(r"https:\/\/wx.qlogo.cn\/mmopen\/{:016x}/132?a=1&b=\u003d", chance.u64(..));
        members.add("avatar", text(&avatar));
        members.add("wxNickname", text(one_of(chance, &NICKNAMES)));
    }
    if chance.bool() {
        members.add("birthday", chance.u64(..1_000_000_000) * 1000);
    }
    members.add("markFlag", chance.u8(..2));
    if chance.bool() {
        members.add("userType", r#"["个人", "\u5546\u5bb6"]"#);
        members.add("payFeature", r#""  两个空格  ""#);
    }
    if chance.bool() {
        members.add("industry", array(std::iter::once(text(one_of(chance, &INDUSTRIES)))));
    }
}

fn places(members: &mut Members<'_>, chance: &mut fastrand::Rng, customer: &Customer) {
    for [country, province, city] in
        [["wxCountry", "wxProvince", "wxCity"], ["", "province", "city"], ["", "lbsProvince", "lbsCity"]]
    {
        let [province_name, city_name] = PLACES[chance.usize(..PLACES.len())];
        if chance.u8(..4) == 0 {
            continue;
        }
        if !country.is_empty() {
            members.add(country, r#""中国""#);
        }
        members.add(province, text(province_name));
        members.add(city, text(city_name));
    }
    let addresses = chance.usize(..5);
    if addresses > 0 {
        // The contact's phone and id are named like keys, and are not this customer's.
        let list = (0..addresses).map(|n| {
            let [province, city] = PLACES[chance.usize(..PLACES.len())];
            format!(
                r#"{{"province":"{province}","city":"{city}","detail":"人民路{n}号\n\"甲\"座","lat":1.0,"lng":1.164e2,"weight":1e3,"phone":"139{:08}","audienceUserId":{},"thirdId":null}}"#,
                chance.u32(..100_000_000), customer.id + 7,
            )
        });
        members.add("addressList", array(list));
    }
}

fn source(members: &mut Members<'_>, chance: &mut fastrand::Rng, customer: &Customer) {
    if chance.bool() {
        members.add("sourceAudid", customer.id - 7);
    }
    if chance.bool() {
        members.add("gzhInteractTime", 1_640_000_000_000 + chance.u64(..9_999_999_999));
    }
    if chance.u8(..4) > 0 {
        let name = [one_of(chance, &FAMILY_NAMES), one_of(chance, &GIVEN_NAMES)].concat();
        members.add("sourceCnl", chance.u16(..));
        members.add("sourceCnlName", text(&name));
        members.add("sourceCnlDeptId", chance.u16(..));
        members.add("sourceCnlDeptName", r#""销售\/一部""#);
        members.add("sourceCnlType", if chance.bool() { r#""EMPLOYEE""# } else { r#""FIXED""# });
    }
    members.add("sourceAppType", text(one_of(chance, &APPS)));
}

fn activity(members: &mut Members<'_>, chance: &mut fastrand::Rng) {
    for (total, week, month) in [("active", "weekActive", "monthActive"), ("spread", "weekSpread", "monthSpread")] {
        members.add(total, chance.u32(..10_000));
        for span in [week, month] {
            if chance.bool() {
                let count = chance.u8(..);
                members.add(span, format!(r#"{{"count": {count}, "updateTime": {}}}"#, 1_648_000_000_000_u64));
            }
        }
    }
}

fn subscriptions(members: &mut Members<'_>, chance: &mut fastrand::Rng) {
    let accounts = chance.usize(..6);
    if accounts > 0 {
        let following = (0..accounts).map(|n| format!(r#"{{"appid":"wx{n:06}","wechatName":"兔展{n}"}}"#));
        members.add("subWechatList", array(following));
        let known = (0..accounts).map(|n| {
            let time = 1_600_000_000_000 + chance.u64(..9_999_999_999);
            format!(
                r#"{{"appid":"wx{n:06}","wechatName":"兔展{n}","gzhInteractTime":{time},"firstSubDate":{time},"firstSubSourceCnlType":"FIXED","firstSubSourceCnl":{n},"firstSubSourceCnlDeptId":{},"firstSubSourceTaskId":{}}}"#,
                n * 3, n * 5,
            )
        });
        members.add("wechatList", array(known));
    }
}
